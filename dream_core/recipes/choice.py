"""What published values hang on: method, dataset, IPC, and the user's own values for some of them."""

from dataclasses import dataclass
from typing import Any

from dream_core.catalog import DatasetFacts


@dataclass(frozen=True)
class Choice:
    """A request, as the published values see it. `facts` is None for a folder, of which nothing is known yet."""

    method: str
    dataset: str
    ipc: int
    image_size: int
    facts: DatasetFacts | None
    params: dict[str, Any]

    @property
    def flips(self) -> bool:
        """Whether a mirrored image keeps its class."""
        return self.facts.flips if self.facts else True

    def whole(self, name: str, default: int) -> int:
        """The user's value for a parameter where it is a whole number, so that rules can be worked out before
        validation has its say."""
        return whole(self.params.get(name), default)

    def of_the_network(self) -> dict[str, Any]:
        """The user's values for the network, where a set is judged by the one that it was made with."""
        return {name: self.params[name] for name in ("network", "depth", "width", "norm") if name in self.params}


def whole(value: Any, default: int) -> int:
    """The value where it is a positive whole number, else the default."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else default


def between(table: dict[int, tuple[int, int]], ipc: int) -> tuple[int, int]:
    """A pair of counts that is published at some IPCs, on the straight lines between these; the last one above them."""
    known = sorted(table)
    if ipc >= known[-1]:
        return table[known[-1]]
    above = next(n for n in known if n >= ipc)
    below = max((n for n in known if n <= ipc), default=above)
    share = (ipc - below) / (above - below) if above > below else 0
    first, second = (round(a + share * (b - a)) for a, b in zip(table[below], table[above], strict=True))
    return first, second
