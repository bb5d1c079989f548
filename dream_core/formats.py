"""How a synthetic set leaves: safetensors, a gallery to look at, a loader, and a manifest that says how to use it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save
from torch import Tensor

from dream_core import loader
from dream_core.catalog import METHODS
from dream_core.datasets import Dataset
from dream_core.images import Normalize, Transform, Zca
from dream_core.recipes import Recipe
from dream_core.subject import Replay, SoftLabels, TrainingSet
from dream_core.synthetic import SyntheticSet

SCHEMA_VERSION = 1
ZCA_FILE = "zca.safetensors"
_LINE = 1  # pixels between two images of a preview
MEDIA_TYPES = {
    ".safetensors": "application/octet-stream",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".png": "image/png",
    ".py": "text/x-python",
}


@dataclass(frozen=True)
class Result:
    """All that is published of a distillation. `baselines` are as in the manifest, and `evaluation` is its only one."""

    synthetic: SyntheticSet
    training: TrainingSet
    recipe: Recipe
    dataset: Dataset
    losses: list[tuple[int, float]]
    evaluation: dict[str, Any] | None
    baselines: dict[str, Any]
    provenance: dict[str, Any]
    """What only the caller knows: job id, time, software."""
    steps_done: int | None = None
    """Of a run that was ended early, whose result is a partial one: it has not been judged."""


def write_result(result: Result, directory: Path) -> dict[str, Any]:
    """Write every file into a fresh directory, `manifest.json` last; return the manifest.

    The tensors hold stored pixels as float32, not normalised, and decoded ones to train on: in [0, 1] where the method
    keeps them there. Beside them lies what the set is to be used with: the steps it was learned for, soft labels,
    whitening.
    """
    directory.mkdir(parents=True, exist_ok=True)
    synthetic, training = result.synthetic, result.training
    stored = synthetic.pixels()
    _save_tensors(directory / "synthetic.safetensors", images=stored, labels=synthetic.labels)
    _save_tensors(directory / "decoded.safetensors", images=training.images, labels=training.labels)
    if training.replay:
        replay = training.replay
        _save_tensors(directory / "steps.safetensors", order=torch.stack(replay.order), rates=replay.rates)
    if training.soft:
        _save_tensors(directory / "soft_labels.safetensors", seeds=training.soft.seeds, logits=training.soft.logits)
    if isinstance(training.transform, Zca):
        _save_tensors(directory / ZCA_FILE, **training.transform.tensors())
    shown = gallery(stored.clamp(0, 1), synthetic.ipc, result.dataset.class_names)
    shown.save(directory / "gallery.png", optimize=False)
    _save_json(directory / "recipe.json", result.recipe.model_dump())
    if result.evaluation:
        _save_json(directory / "evaluation.json", {"evaluation": result.evaluation, "baselines": result.baselines})
    lines = "".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in result.losses)
    (directory / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (directory / "load.py").write_text(Path(loader.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    manifest = _manifest(result) | {"files": [_entry(path) for path in sorted(directory.iterdir())]}
    _save_json(directory / "manifest.json", manifest)
    return manifest


def read_training_set(directory: Path) -> TrainingSet:
    """What networks are trained on, of a result that `write_result` left.

    Raises OSError, ValueError, KeyError or RuntimeError where the directory holds no whole result.
    """
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    images, labels = loader.load(directory, normalized=False)
    about, preparation = manifest["training"], manifest["preprocessing"]
    transform: Transform = Normalize(tuple(preparation["mean"]), tuple(preparation["std"]))
    if preparation["zca"]:
        transform = Zca(**loader.read_safetensors(directory / ZCA_FILE), eps=preparation["zca"]["eps"])
    replay = soft = None
    if about["steps"]:
        plan = loader.read_safetensors(directory / "steps.safetensors")
        replay = Replay(list(plan["order"]), plan["rates"], about["steps"]["initialization"], about["steps"]["seed"])
    if about["view"]:
        kept = loader.read_safetensors(directory / "soft_labels.safetensors")
        soft = SoftLabels(kept["seeds"], kept["logits"], about["view"])
    return TrainingSet(images, labels, transform, about["lr"], replay, soft)


def _manifest(result: Result) -> dict[str, Any]:
    recipe, dataset, training = result.recipe, result.dataset, result.training
    method = METHODS[recipe.method]
    factor, formation = result.synthetic.factor, result.synthetic.formation
    zca = {"file": ZCA_FILE, "eps": training.transform.eps} if isinstance(training.transform, Zca) else None
    unlabelled = recipe.evaluation.mode == "soft" and training.soft is None  # ended before there were any soft labels
    return {
        "schema_version": SCHEMA_VERSION,
        **result.provenance,
        **({} if result.steps_done is None else {"partial": True, "steps_done": result.steps_done}),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "train": len(dataset.train),
            "test": len(dataset.test),
            "licence": dataset.licence,
        },
        "method": {"name": method.name, "paper": method.paper, "params": recipe.model_dump(exclude={"evaluation"})},
        "ipc": recipe.ipc,
        "seed": recipe.seed,
        "classes": [
            {"index": index, "name": name, "count": recipe.ipc} for index, name in enumerate(dataset.class_names)
        ],
        "preprocessing": {
            "value_range": "0..1" if result.synthetic.bounded else "unbounded",
            "normalized": False,
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            "zca": zca,
            "layout": "NCHW",
        },
        "decode": {
            "type": "none" if factor == 1 else {"single": "uniform"}.get(formation, formation),
            "factor": factor,
            "stored": len(result.synthetic.labels),
            "decoded": len(training.images),
        },
        "training": {
            "mode": "train" if unlabelled else recipe.evaluation.mode,
            "lr": training.lr,
            "steps": training.replay
            and {"initialization": training.replay.initialization, "seed": training.replay.init_seed},
            "view": training.soft and training.soft.view,
        },
        "storage": _storage(result),
        "evaluation": [result.evaluation] if result.evaluation else [],
        "baselines": result.baselines,
    }


def _storage(result: Result) -> dict[str, int]:
    """Bytes of what a user must keep: a comparison between methods counts labels and steps as well as pixels."""
    replay, soft = result.training.replay, result.training.soft
    sizes = {
        "images": [result.synthetic.images],
        "soft_labels": [soft.seeds, soft.logits] if soft else [],
        "steps": [*replay.order, replay.rates] if replay else [],
    }
    return {f"{name}_bytes": sum(t.numel() * t.element_size() for t in tensors) for name, tensors in sizes.items()}


def gallery(images: Tensor, ipc: int, class_names: tuple[str, ...], columns: int = 10) -> Image.Image:
    """The stored images of each class beside its name: float [classes · ipc, C, H, W] in [0, 1].

    At most `columns` of a class are shown; where there are few, several classes share a row.
    """
    shown, side, gap = min(ipc, columns), images.shape[-1], 4
    cell = side * max(1, round(64 / side))
    font = ImageFont.load_default(14)
    margin = 3 * gap + max(int(font.getlength(name)) for name in class_names)
    width, height = margin + shown * (cell + gap), cell + gap
    across = min(len(class_names), max(1, columns // (2 * shown)))
    page = Image.new("RGB", (across * width + gap, -(-len(class_names) // across) * height + gap), "white")
    draw = ImageDraw.Draw(page)
    for label, name in enumerate(class_names):
        left, top = label % across * width, gap + label // across * height
        draw.text((left + margin - gap, top + cell / 2), name, fill="black", font=font, anchor="rm")
        for column in range(shown):
            picture = _picture(images[label * ipc + column]).resize((cell, cell), Image.Resampling.NEAREST)
            page.paste(picture, (left + margin + column * (cell + gap), top))
    return page


def preview(synthetic: SyntheticSet, side: int = 640, columns: int = 10, rows: int = 20) -> Image.Image:
    """The stored pixels as they are now, a class in each row: a picture of about `side` pixels at most.

    The first `columns` images of the first `rows` classes are shown. Reads the set, and changes nothing.
    """
    shown, classes = min(synthetic.ipc, columns), min(synthetic.classes, rows)
    which = torch.arange(classes)[:, None] * synthetic.ipc + torch.arange(shown)
    some = SyntheticSet(
        synthetic.images[which.flatten()], classes, shown, space=synthetic.space, bounded=synthetic.bounded
    )
    images = some.pixels().clamp(0, 1)
    room, own = side // max(shown, classes), images.shape[-1]
    cell = room // own * own or room  # whole multiples look best
    images = F.interpolate(images, size=(cell, cell), mode="nearest" if cell >= own else "area")
    lined = F.pad(images, (0, _LINE, 0, _LINE), value=1.0).unflatten(0, (classes, shown))
    page = lined.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return _picture(page[:, :-_LINE, :-_LINE]).convert("RGB")


def _picture(image: Tensor) -> Image.Image:
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _save_tensors(path: Path, **tensors: Tensor) -> None:
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    path.write_bytes(content)  # so that a full disk is an OSError


def _save_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "path": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "media_type": MEDIA_TYPES[path.suffix],
    }
