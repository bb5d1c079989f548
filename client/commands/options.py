"""Options and arguments that several commands share, and how their text is read."""

import json
from typing import Annotated, Any

import typer

JOBS, RESULTS, FACTS, SERVICE, HERE = (
    "Jobs on a service", "What jobs have made", "What there is", "A service for several people", "On this machine",
)  # fmt: skip

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.", show_default=False)]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="DREAM_URL", help="The service's address.", show_default="http://127.0.0.1:8000"),
]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="A job's id, or its last characters as `dream ls` shows them.")
]
JobsArgument = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Ids of jobs, or their last characters as `dream ls` shows them.")
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")]
NameOption = Annotated[str | None, typer.Option("--name", help="What to call the job.")]
MetaOption = Annotated[
    list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="A pair of your own to find it by; repeatable.")
]

# what a job is made of
DatasetOption = Annotated[
    str, typer.Option("--dataset", "-d", help="A name of `dream datasets`, folder:NAME or upload:NAME.")
]
MethodOption = Annotated[str, typer.Option("--method", "-m", help="A name of `dream methods`.")]
IpcOption = Annotated[int, typer.Option("--ipc", help="Images per class.")]
SeedOption = Annotated[int, typer.Option("--seed")]
GpusOption = Annotated[int, typer.Option("--gpus", min=1, help="Devices of one worker that share the job.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting of the recipe, as factor=1 or evaluation.epochs=100."
    ),
]


def parse_settings(texts: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`--set` values as (params, evaluation). A value is JSON where it reads as JSON, else text."""
    params: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    for key, text in _pairs(texts, "--set", "factor=1 or evaluation.epochs=100"):
        try:
            value = json.loads(text, parse_constant=str)  # NaN is no JSON
        except ValueError:
            value = text
        section, dot, field = key.partition(".")
        if dot and section == "evaluation":
            evaluation[field] = value
        else:
            params[key] = value
    return params, evaluation


def parse_metadata(texts: list[str]) -> dict[str, str]:
    """`--meta` values as pairs."""
    return dict(_pairs(texts, "--meta", "project=thesis"))


def _pairs(texts: list[str], option: str, example: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for text, (key, equals, _) in zip(texts, pairs, strict=True):
        if not equals or not key.strip():
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE, as {example}", param_hint=option)
    return [(key.strip(), value) for key, _, value in pairs]
