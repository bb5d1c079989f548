"""Looks at an uploaded zip and makes a dataset of it: `python -m worker.examination ORDER.json`.

A process of its own, which `worker.validation` starts. A hostile file may mislead it; but it has bounds on memory, time
and disk, and nothing to steal but the zip.
"""

import hashlib
import json
import os
import resource
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from dream_core.inventory import TREE_EXPECTED
from dream_core.pictures import SUFFIXES
from worker.pictures import MAX_PIXELS, Prepared, prepare
from worker.report import Report, draw, some
from worker.unpacking import Archive, Limits, Refused

MAX_CLASSES = 1000
_LARGEST_FILE = 16 << 20  # a prepared image has 200 kB at most, and a report less than one MB
_TRAIN, _TEST, _VAL = "train", "test", "val"

Listing = dict[str, list[str]]
"""Class -> names of its files in the zip, both sorted."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the examining process may use up. 200,000 images of 256 x 256 pixels take half an hour."""

    memory_bytes: int = 768 << 20
    cpu_s: int = 2 * 3600
    wall_s: float = 4 * 3600


def main(order_path: Path) -> int:
    """Carry out an order: leave a report, and beside it the prepared tree. Returns the exit code, after sysexits.h."""
    order = json.loads(order_path.read_text(encoding="utf-8"))
    workdir = Path(order["workdir"])
    _bound(Bounds(**order["bounds"]))
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("ignore")  # of odd but harmless files
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        report = examine(Path(order["zip"]), workdir / "tree", Limits(**order["limits"]))
        (workdir / "report.json").write_text(json.dumps(report.as_dict()), encoding="utf-8")
        if report.ok:
            os.sync()  # a dataset that is called ready must outlast a power failure
    except OSError:
        return os.EX_IOERR
    except MemoryError:
        return os.EX_SOFTWARE
    return os.EX_OK


def _bound(bounds: Bounds) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, bounds.memory_bytes),
        (resource.RLIMIT_CPU, bounds.cpu_s),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, hard))


def examine(path: Path, output: Path, limits: Limits) -> Report:
    """Examine a zip; write its images to `output`/{train,test}/<class>/000001.png as they turn out to be good.

    What was written is of use only if the report is `ok`. Raises OSError where the disk fails.
    """
    report = Report()
    try:
        with Archive(path, limits) as archive:
            report.found = draw(archive.files, archive.folders)
            splits = _lay_out(archive, report)
            _Preparation(archive, report, output, limits).run(splits)
    except Refused as refused:
        report.add(refused)
    report.ok = not report.problems
    if not report.ok:
        report.fingerprint = None
    return report


def _lay_out(archive: Archive, report: Report) -> dict[str, Listing]:
    """Which file belongs to which class of which split. What is wrong with the tree goes into the report."""
    if archive.litter:
        report.warn(f"left out what belongs to no dataset: {some(archive.litter)}")
    prefix = _wrapping(archive)
    folders = {folder.removeprefix(prefix) for folder in archive.folders if folder.startswith(prefix)}
    tops = {name.removeprefix(prefix).partition("/")[0] for name in archive.files} | {
        f for f in folders if "/" not in f
    }
    sources = {_TRAIN: _TRAIN, _TEST: _TEST if _TEST in folders else _VAL}
    if missing := [f"{source}/" for source in sources.values() if source not in folders]:
        missing = ["test/ or val/" if name == "val/" else name for name in missing]
        report.add(Refused("NO_SPLIT", f"there is no {' and no '.join(missing)}; expected {TREE_EXPECTED}", prefix))
    if extra := tops - set(sources.values()):
        report.warn(f"left out, as it lies outside of the splits: {some(extra)}")
    splits: dict[str, Listing] = {split: {} for split in sources}
    for name in archive.files:
        top, *rest = name.removeprefix(prefix).split("/")
        split = next((split for split, source in sources.items() if source == top), None)
        if split is None or not rest:
            continue
        if len(rest) != 2:
            report.add(Refused("MISPLACED", f"lies where no image belongs; expected {TREE_EXPECTED}", name))
        elif PurePosixPath(name).suffix.lower() not in SUFFIXES:
            report.add(Refused("WRONG_EXTENSION", "is not named as a PNG, JPEG or WEBP; convert or remove it", name))
        else:
            splits[split].setdefault(rest[0], []).append(name)
    empty = {f for f in folders if f.count("/") == 1 and f.partition("/")[0] in sources.values()}
    empty -= {f"{sources[split]}/{name}" for split, listing in splits.items() for name in listing}
    for folder in sorted(empty):
        report.add(Refused("EMPTY_CLASS", "has no images; add some, or remove it", prefix + folder))
    _check_classes(splits, sources, prefix, report)
    return splits


def _wrapping(archive: Archive) -> str:
    """The one folder around everything, with a slash, if there is one: it comes from zipping a folder."""
    tops = {name.partition("/")[0] for name in (*archive.files, *archive.folders)}
    if len(tops) != 1 or tops & {_TRAIN, _TEST, _VAL} or not archive.folders:
        return ""
    return f"{tops.pop()}/"


def _check_classes(splits: dict[str, Listing], sources: dict[str, str], prefix: str, report: Report) -> None:
    train, test = splits[_TRAIN], splits[_TEST]
    names = sorted(train.keys() | test.keys())
    if train and test:
        for name in names:
            if not (name in train and name in test):
                here, lacking = (_TRAIN, _TEST) if name in train else (_TEST, _TRAIN)
                text = f"the class has images in {sources[here]}/ only; put some into {sources[lacking]}/ as well"
                report.add(Refused("CLASS_IN_ONE_SPLIT", text, f"{prefix}{sources[here]}/{name}"))
    for split, listing in splits.items():
        if not listing and not report.problems:
            report.add(Refused("EMPTY_SPLIT", f"has no images; expected {TREE_EXPECTED}", f"{prefix}{sources[split]}"))
    if len(names) == 1:
        report.add(Refused("TOO_FEW_CLASSES", f"there is only the class {names[0]!r}; at least two are needed"))
    if len(names) > MAX_CLASSES:
        report.add(Refused("TOO_MANY_CLASSES", f"there are {len(names)} classes; at most {MAX_CLASSES} are taken"))
    report.classes = [
        {"name": name, "train": len(train.get(name, [])), "test": len(test.get(name, []))}
        for name in names[:MAX_CLASSES]
    ]


@dataclass(slots=True)
class _Preparation:
    """Decodes all images, writes them as long as all is well, and sums up what they are."""

    archive: Archive
    report: Report
    output: Path
    limits: Limits
    written: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    grey: int = 0
    lines: list[str] = field(default_factory=list)

    def run(self, splits: dict[str, Listing]) -> None:
        """All images of all classes. Raises Refused where the zip itself is at fault."""
        for split, listing in splits.items():
            for of_class, names in listing.items():
                folder = self.output / split / of_class
                folder.mkdir(parents=True)
                for number, name in enumerate(names, start=1):
                    data = self.archive.read(name)
                    try:
                        self._keep(prepare(name, data), folder / f"{number:06}.png")
                    except Refused as refused:
                        self.report.add(refused)
        self._sum_up()

    def _keep(self, image: Prepared, place: Path) -> None:
        self.sizes.append((image.width, image.height))
        self.grey += image.grey
        split, of_class = place.parts[-3:-1]
        self.lines.append(f"{split}\t{of_class}\t{hashlib.sha256(image.png).hexdigest()}\n")
        if self.report.problems:
            return
        self.written += len(image.png)
        if self.written > self.limits.total_bytes:
            raise Refused("TOO_LARGE", f"the images take more than {self.limits.total_bytes:,} bytes; leave some out")
        place.write_bytes(image.png)

    def _sum_up(self) -> None:
        if not self.sizes:
            return
        widths, heights = zip(*self.sizes, strict=True)
        self.report.size = {"min": [min(widths), min(heights)], "max": [max(widths), max(heights)]}
        self.report.fingerprint = hashlib.sha256("".join(sorted(self.lines)).encode()).hexdigest()
        if oblong := sum(width != height for width, height in self.sizes):
            self.report.warn(f"{oblong} images are not square: the square in their middle is taken")
        if 0 < self.grey < len(self.sizes):
            self.report.warn(f"{self.grey} of {len(self.sizes)} images are grey: they are made RGB like the others")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
