"""The most memory of some steps and an epoch of judging: `python -m tests.dream_core.peak_of_run` with JSON on stdin.

`recipe` and `facts` say what is run, on random pixels of that shape, or on the files of the dataset under `data_dir`;
`steps` how long. Prints bytes.
"""

import json
import sys
from pathlib import Path

from benchmarks.inner_iteration.images import noise_dataset
from dream_core.catalog import DatasetFacts
from dream_core.datasets import load_dataset
from dream_core.distillation import Distillation
from dream_core.evaluation import train_and_test
from dream_core.host import keep_freed_memory, peak_memory, use_threads_for
from dream_core.recipes import read_recipe


def main() -> None:
    keep_freed_memory()
    asked = json.load(sys.stdin)
    recipe, facts = read_recipe(asked["recipe"]), DatasetFacts(**asked["facts"])
    use_threads_for(recipe.image_size)
    data_dir = asked.get("data_dir")
    dataset = load_dataset(recipe.dataset, Path(data_dir)) if data_dir else noise_dataset(facts)
    distillation = Distillation(recipe, dataset, "cpu")
    for _ in range(asked["steps"]):
        distillation.step()
    state = distillation.state_dict()
    for _ in train_and_test(
        distillation.training_set(), dataset, recipe.evaluation, 0, ("peak",), distillation.device, epochs=1
    ):
        pass
    del state
    sys.stdout.write(f"{peak_memory()}\n")


if __name__ == "__main__":
    main()
