"""Commands and answers that other installed packages offer, found by entry point and imported by no name."""

import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from client.errors import ClientError

COMMANDS, LOCAL = "dream.commands", "dream.local"
EXTRAS = {"serve": "serve"}
"""The extra that brings what a command needs; `worker` for all others."""
OWN = {"api", "client", "dream_core", "jobs", "worker"}


@dataclass(frozen=True, slots=True)
class Command:
    """A function for the command line. One that cannot be loaded takes any arguments, and says what is missing."""

    name: str
    function: Callable[..., Any]
    loaded: bool


def commands() -> list[Command]:
    """The offered commands, by name."""
    points = importlib.metadata.entry_points(group=COMMANDS)
    return [_command(point) for point in sorted(points, key=lambda point: point.name)]


def local(name: str) -> Any | None:
    """What this machine itself answers without a service, or None where what that takes is not installed."""
    for point in importlib.metadata.entry_points(group=LOCAL, name=name):
        try:
            return point.load()()
        except ModuleNotFoundError as error:
            if not _third_party(error):
                raise
    return None


def _command(point: importlib.metadata.EntryPoint) -> Command:
    try:
        function = point.load()
    except (ImportError, AttributeError) as error:  # one broken command must not take the others with it
        return Command(point.name, _absent(point.name, error), loaded=False)

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            if not _third_party(error):
                raise
            raise explain(point.name, error) from error

    return Command(point.name, guarded, loaded=True)


def _absent(name: str, error: ImportError | AttributeError) -> Callable[[], None]:
    def absent() -> None:
        raise explain(name, error) from error

    absent.__doc__ = "Not available in this installation."
    return absent


def explain(name: str, error: ImportError | AttributeError) -> ClientError:
    extra = EXTRAS.get(name, "worker")
    if not _third_party(error):
        return ClientError(f"`dream {name}` cannot be loaded: {error}", advice="install dream-distillation again")
    return ClientError(
        f"`dream {name}` needs the `{extra}` extra, which is not installed ({error.name} is missing)",
        advice=f"pip install 'dream-distillation[{extra}]'",
    )


def _third_party(error: ImportError | AttributeError) -> bool:
    """A missing requirement, as opposed to a mistake of ours."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in OWN
