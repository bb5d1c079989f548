"""What is told of an uploaded dataset: what was expected, what was found, and what is to be mended."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from worker.unpacking import Refused

EXPECTED = """\
train/
  <class>/  *.png *.jpg *.jpeg *.webp
  <class>/  ...
test/  (or val/)
  <class>/  the same classes as in train/"""

_SHOWN_PROBLEMS = 50
_SHOWN_WARNINGS = 20
_SHOWN_LINES = 30
_SHOWN_FOLDERS = 8
_SHOWN_LETTERS = 200
_DEEPEST = 6  # letters of indent


@dataclass(slots=True)
class Report:
    """The outcome of an examination, as it goes to the user: plain JSON, and paths inside the zip only.

    `size` holds the least and the greatest width and height in pixels, as the images came; `channels` and
    `fingerprint` are of what was made of them.
    """

    ok: bool = False
    expected: str = EXPECTED
    found: str = ""
    problems: list[dict[str, str]] = field(default_factory=list)
    more_problems: int = 0
    warnings: list[str] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    channels: int = 3
    size: dict[str, list[int]] | None = None
    fingerprint: str | None = None

    @classmethod
    def of(cls, refused: Refused) -> Self:
        """Where nothing could be looked into."""
        report = cls()
        report.add(refused)
        return report

    def add(self, refused: Refused) -> None:
        """One more problem; the first few are told, the others counted."""
        if len(self.problems) < _SHOWN_PROBLEMS:
            problem = {"code": refused.code, "path": shown(refused.path), "message": shown(refused.message)}
            self.problems.append(problem)
        else:
            self.more_problems += 1

    def warn(self, message: str) -> None:
        """Something that does not hinder, but may surprise."""
        if len(self.warnings) < _SHOWN_WARNINGS:
            self.warnings.append(shown(message))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def shown(text: str) -> str:
    """Text out of a zip, without what cannot be seen or stored, and not without end."""
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return plain if len(plain) <= _SHOWN_LETTERS else plain[: _SHOWN_LETTERS - 1] + "…"


def some(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN_FOLDERS} more" if len(listed) > _SHOWN_FOLDERS else ""
    return ", ".join(listed[:_SHOWN_FOLDERS]) + more


def draw(files: Sequence[str], folders: Iterable[str]) -> str:
    """The folders as a tree, each with the number of files that lie directly in it, in some thirty lines at most."""
    counts = dict.fromkeys(folders, 0)
    loose = sum("/" not in file for file in files)
    for file in files:
        if folder := file.rpartition("/")[0]:
            counts[folder] += 1
    inside: dict[str, list[str]] = {}
    for folder in sorted(counts):
        inside.setdefault(folder.rpartition("/")[0], []).append(folder)
    lines = [_files(loose)] if loose else []
    lines += _branches(inside, counts, "", "")
    if len(lines) > _SHOWN_LINES:
        lines = [*lines[: _SHOWN_LINES - 1], "…"]
    return "\n".join(lines) or "nothing"


def _branches(inside: dict[str, list[str]], counts: dict[str, int], folder: str, indent: str) -> list[str]:
    lines, below = [], inside.get(folder, [])
    for path in below[:_SHOWN_FOLDERS]:
        note = f"  {_files(counts[path])}" if counts[path] or path not in inside else ""
        lines.append(f"{indent}{shown(path.rpartition('/')[2])}/{note}")
        if len(indent) < _DEEPEST:
            lines += _branches(inside, counts, path, indent + "  ")
    if len(below) > _SHOWN_FOLDERS:
        lines.append(f"{indent}… and {len(below) - _SHOWN_FOLDERS} more")
    return lines


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count or 'no'} files"
