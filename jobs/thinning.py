"""Fewer of many, spread evenly."""


def evenly(count: int, keep: int) -> set[int]:
    """Which of `count` things in a row to keep: `keep` (at least 2) of them, the first and the last among them."""
    if count <= keep:
        return set(range(count))
    return {round(number * (count - 1) / (keep - 1)) for number in range(keep)}
