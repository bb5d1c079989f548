"""Examines many zips, each in a bounded process, and tells what came of it and how much memory one took at most.

`python -m tests.worker.examiner FOLDER`: the zips in it are examined; every target directory lies beside its zip,
and `outcome.json` tells of all.
In a process of its own, as the system only tells of the largest of *all* children.
"""

import json
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from worker.examination import Bounds
from worker.unpacking import Limits
from worker.validation import validate


def main(folder: Path) -> None:
    def examine(path: Path) -> dict:
        return validate(path, path.with_suffix(""), "mine", Limits(), Bounds()).as_dict()

    paths = sorted(folder.glob("*.zip"))
    with ThreadPoolExecutor(2) as pool:
        reports = dict(zip([path.stem for path in paths], pool.map(examine, paths), strict=True))
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    (folder / "outcome.json").write_text(json.dumps({"reports": reports, "memory": memory}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
