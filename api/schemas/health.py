"""How the service is."""

from typing import Literal

from api.schemas.base import Output


class Live(Output):
    """The process answers."""

    status: Literal["ok"]


class Ready(Output):
    """Whether jobs can be taken. Without a broker they can: they wait in the database until it is back. Without the
    store of artifacts they can, too, but they cannot end.
    """

    status: Literal["ready", "unavailable"]
    database: Literal["ok", "unreachable", "not migrated"]
    broker: Literal["ok", "unreachable", "none"]
    """`none`: there is to be none, and workers look into the database."""
    artifacts: str
    """`ok`, or what is wrong with the store of results."""


class ProblemKind(Output):
    """What a problem's code means."""

    code: str
    status: int
    title: str
    meaning: str
