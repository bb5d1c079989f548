"""What this package gives to the `dream` command. Imports nothing heavy until it is asked."""

import importlib.metadata
from pathlib import Path
from typing import Annotated, Any

import typer

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override the recipe, as factor=1 or evaluation.epochs=100."),
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the real images are.", show_default="DREAM_DATA_DIR")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
GpusOption = Annotated[int, typer.Option("--gpus", min=1, help="Devices that share the work; without GPUs, cores.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.", show_default=False)]


def run(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="A name of `dream datasets`, or folder:PATH.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the result; must not hold anything.")],
    method: Annotated[str, typer.Option("--method", "-m", help="A name of `dream methods`.")] = "dream",
    ipc: Annotated[int, typer.Option("--ipc", help="Images per class.")] = 1,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    settings: SetOption = None,
    data_dir: DataDirOption = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the dataset where it is missing.")] = False,
    device: DeviceOption = "auto",
    gpus: GpusOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Distil here, without a service. Interrupted, the same command goes on where it stopped."""
    from client.commands.options import parse_settings
    from jobs.settings import get_settings
    from worker import local

    recipe = local.recipe_for(method, dataset, ipc, seed, *parse_settings(settings or []), gpus)
    data_dir, cache = data_dir or get_settings().data_dir, get_settings().cache
    job = local.Run(recipe, output.absolute(), data_dir, download, device, cache, gpus)
    raise typer.Exit(local.run(job, as_json))


def evaluate(
    result: Annotated[Path, typer.Argument(metavar="DIR", help="A downloaded result.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the evaluation, as epochs=100.")
    ] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a downloaded result again, on the real test images here."""
    from client import console
    from client.commands.options import parse_settings
    from dream_core.host import keep_freed_memory
    from jobs.settings import get_settings
    from worker import local

    keep_freed_memory()
    params, evaluation = parse_settings(settings or [])
    measured = local.evaluate(result, data_dir or get_settings().data_dir, params | evaluation, device)
    if as_json:
        console.print_json(measured)
    else:
        score = measured["accuracy"]
        console.say(f"{score['mean']:.1f} ± {score['std']:.1f} % ({score['n']} networks, {measured['epochs']} epochs)")


def local_datasets() -> list[dict[str, Any]]:
    """The built-in datasets and whether their files are in the data directory, as `GET /v1/datasets` tells it."""
    from dream_core.catalog import DATASETS
    from dream_core.inventory import inventory
    from jobs.settings import get_settings

    shown = ("name", "title", "classes", "channels", "size", "train", "test", "smallest_class", "licence")
    return [
        {word: getattr(DATASETS[found.name], word) for word in shown}
        | {
            "available": found.available,
            "path": str(found.path) if found.path else None,
            "missing": list(found.missing),
            "advice": found.advice,
        }
        for found in inventory(get_settings().data_dir)
    ]


def local_methods() -> list[dict[str, Any]]:
    """The methods of distillation, as `GET /v1/methods` tells it."""
    from dream_core.recipes.description import describe_all

    return describe_all()


def local_device() -> dict[str, Any]:
    """The device that `auto` means here, and the versions of what computes."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "device": "cuda" if cuda else "cpu",
        "name": torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "cuml": _cuml(),
    }


def _cuml() -> str | None:
    for name in ("cuml-cu13", "cuml-cu12"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
