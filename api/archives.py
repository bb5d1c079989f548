"""A result as one zip, made while it is sent: no temporary file, a few images in memory at a time, the same bytes
every time.

    safetensors   the published files as they are
    npz           what `numpy.load` opens: `images` float32 [N, C, H, W], `labels` int64 [N], `class_names`, and what
                  prepares them for a network: `mean` and `std`, or `zca_*`
    imagefolder   train/<class>/000.png, as torchvision's `ImageFolder` reads it, and a README.txt
    hf            data/train/<class>/000.png and a README.md with a card, as `datasets.load_dataset(directory)` reads it

The images are the decoded ones, which are to be trained on. PNG has 256 levels: the README says how far off that is.
Folders sort in the order of labels. Needs numpy and Pillow, but no torch. Import it where it is used.
"""

import io
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from api.tensors import Tensors
from api.zips import CHUNK, Member, zip_length, zipped
from jobs.artifacts import MANIFEST, ArchiveFormat, ManifestFile, Result

_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_IMAGES, _README, _CARD = "decoded.safetensors", "README.txt", "README.md"
_FACTS = {"dataset", "method", "ipc", "classes", "preprocessing", "decode", "training"}


class Unsuitable(Exception):
    """The result cannot be had in this format."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip to be sent. `length` is None where it is not known before it is made."""

    content: Iterator[bytes]
    length: int | None
    suffix: str


def archive(result: Result, wanted: ArchiveFormat) -> Archive:
    """A published result in a format. Raises Unsuitable; FileNotFoundError if files are missing."""
    facts = result.manifest.model_extra or {}
    if wanted != "safetensors" and (result.find(_IMAGES) is None or not facts.keys() >= _FACTS):
        raise Unsuitable("there are no images in it, or nothing that tells how they are to be used")
    match wanted:
        case "safetensors":
            return _sized(_published(result), ".zip")
        case "npz":
            return _sized(_arrays(result, facts), ".npz")
        case "imagefolder":
            pictures = Pictures.of(result, facts, "train")
            return Archive(zipped(pictures.members(_README, pictures.about)), None, ".zip")
        case "hf":
            pictures = Pictures.of(result, facts, "data/train")
            return Archive(zipped(pictures.members(_CARD, pictures.card)), None, ".zip")


def _sized(members: list[Member], suffix: str) -> Archive:
    return Archive(zipped(members), zip_length(members), suffix)


# ---------------------------------------------------------------- files and arrays


def _published(result: Result) -> list[Member]:
    members = [Member(file.path, _chunks(result, file), file.bytes) for file in result.manifest.files]
    return [*members, Member(MANIFEST, [result.manifest_json], len(result.manifest_json))]


def _chunks(result: Result, file: ManifestFile) -> Iterator[bytes]:
    with result.files.open(file) as content:
        while chunk := content.read(CHUNK):
            yield chunk


def _arrays(result: Result, facts: dict[str, Any]) -> list[Member]:
    preparation = facts["preprocessing"]
    members = [_tensor(result, _IMAGES, name, name) for name in ("images", "labels")]
    members.append(_array("class_names", np.array([about["name"] for about in facts["classes"]])))
    if zca := preparation["zca"]:
        members += [_tensor(result, zca["file"], name, f"zca_{name}") for name in ("mean", "basis", "values")]
        return [*members, _array("zca_eps", np.array(zca["eps"], np.float32))]
    return members + [_array(name, np.array(preparation[name], np.float32)) for name in ("mean", "std")]


def _array(name: str, values: np.ndarray) -> Member:
    buffer = io.BytesIO()
    npy.write_array(buffer, values, allow_pickle=False)
    return Member(f"{name}.npy", [buffer.getvalue()], buffer.tell())


def _open(result: Result, path: str) -> BinaryIO:
    """Raises FileNotFoundError for what the manifest does not list, too."""
    if (file := result.find(path)) is None:
        raise FileNotFoundError(path)
    return result.files.open(file)


def _tensor(result: Result, path: str, tensor: str, name: str) -> Member:
    """An array as numpy stores it, read and sent some rows at a time."""
    with _open(result, path) as file:
        tensors = Tensors(file)
        shape, dtype = tensors.shape(tensor), tensors.dtype(tensor)
    header = io.BytesIO()
    description = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(header, description)
    row_bytes = dtype.itemsize * math.prod(shape[1:])

    def content() -> Iterator[bytes]:
        yield header.getvalue()
        step = max(1, CHUNK // max(1, row_bytes))
        with _open(result, path) as file:
            tensors = Tensors(file)
            for row in range(0, shape[0], step):
                yield tensors.rows(tensor, row, row + step).tobytes()

    return Member(f"{name}.npy", content(), header.tell() + shape[0] * row_bytes)


# ---------------------------------------------------------------- pictures


def folder_names(names: Sequence[str]) -> list[str]:
    """Names of classes as names of folders that sort as they stand here, on every file system.

    Where the names as they are do not, each gets its number in front.
    """
    plain = [_plain(name) for name in names]
    if plain == sorted(plain) and len({name.casefold() for name in plain}) == len(plain):
        return plain
    width = len(str(len(plain) - 1))
    return [f"{number:0{width}d}_{name}" for number, name in enumerate(plain)]


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFC", name)
    safe = "".join(letter if letter.isalnum() or letter in " .-+()" else "_" for letter in letters)
    safe = safe[:60].strip(" ._") or "class"
    return f"{safe}_" if _RESERVED.fullmatch(safe) else safe


@dataclass(slots=True)
class Pictures:
    """The decoded images of a result as PNG files, in a folder for each class."""

    result: Result
    facts: dict[str, Any]
    root: str
    folders: list[str]
    worst: float = field(default=0.0, init=False)
    """How far a pixel of those written so far is from its value, at most."""

    @classmethod
    def of(cls, result: Result, facts: dict[str, Any], root: str) -> "Pictures":
        """Raises Unsuitable where pixels are not what pictures have."""
        with _open(result, _IMAGES) as file:
            channels = Tensors(file).shape("images")[1]
        if facts["preprocessing"]["value_range"] != "0..1":
            _refuse("its pixels are not bounded to [0, 1], so that 8 bits would change what was learned")
        if channels not in (1, 3):
            _refuse(f"its images have {channels} channels")
        return cls(result, facts, root, folder_names([about["name"] for about in facts["classes"]]))

    def members(self, readme: str, text: Callable[[], str]) -> Iterator[Member]:
        """The pictures; then, when it is known how exact they are, a file that tells about them."""
        with _open(self.result, _IMAGES) as file:
            tensors = Tensors(file)
            labels = tensors.rows("labels").tolist()
            width = max(3, len(str(max(Counter(labels).values(), default=1) - 1)))
            seen: Counter[int] = Counter()
            for number, label in enumerate(labels):
                name = f"{self.root}/{self.folders[label]}/{seen[label]:0{width}d}.png"
                seen[label] += 1
                yield Member(name, [self._png(tensors.rows("images", number, number + 1)[0])])
        yield Member(readme, [text().encode()])

    def _png(self, image: np.ndarray) -> bytes:
        levels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
        self.worst = max(self.worst, float(np.abs(levels / 255 - image).max()))
        shown = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(shown).save(buffer, "PNG")
        return buffer.getvalue()

    def about(self) -> str:
        """What whoever opens the archive should know."""
        facts, preparation = self.facts, self.facts["preprocessing"]
        folders = [f"    {i}  {folder}" for i, folder in enumerate(self.folders)]
        lines = [
            f"A synthetic training set: {facts['dataset']['name']} distilled by {facts['method']['name']} to",
            f"{facts['ipc']} stored images per class, {facts['decode']['decoded']} images in all when decoded.",
            *(["It is a partial result: the run was stopped before its end."] if facts.get("partial") else []),
            f"Licence of the dataset that it was made from: {facts['dataset']['licence']}",
            "",
            f"max_abs_error: {self.worst:.6f}",
            "    The most by which a pixel, in [0, 1], differs from what was learned, since PNG has 256 levels.",
            "    format=npz and format=safetensors are exact.",
            "",
            "Labels and folders, in the order of both:",
            *folders,
            "",
            f"Networks were given (image - mean) / std, with mean {preparation['mean']} and std {preparation['std']}.",
            *_how_to_train(facts["training"]),
            "",
        ]
        return "\n".join(lines)

    def card(self) -> str:
        """The same, under the card that datasets have on the Hugging Face Hub."""
        facts = self.facts
        title = f"{facts['dataset']['name']} distilled by {facts['method']['name']}, {facts['ipc']} per class"
        lines = [
            "---",
            f"pretty_name: {json.dumps(title)}",
            "license: other",
            f"license_name: {json.dumps(facts['dataset']['licence'])}",
            "task_categories:",
            "- image-classification",
            "tags:",
            "- dataset-distillation",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            "    path: data/train/**",
            "---",
            f"# {title}",
            "",
            "```python",
            "from datasets import load_dataset",
            'train = load_dataset("path/of/this/directory", split="train")',
            "```",
            "",
            "```text",
            self.about() + "```",
            "",
        ]
        return "\n".join(lines)


def _how_to_train(training: dict[str, Any]) -> list[str]:
    match training["mode"]:
        case "soft":
            return ["It was judged with a teacher's soft labels, which only format=safetensors has."]
        case "replay":
            return ["It was judged by replaying its own gradient steps, which only format=safetensors has."]
    return ["It is to be trained on as any set of labelled images."]


def _refuse(reason: str) -> NoReturn:
    raise Unsuitable(f"{reason}; take npz or safetensors")
