"""How a figure grows: the exponent of the power law that fits best."""

import math
from collections.abc import Sequence


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The slope of the straight line through the logarithms, by least squares; None for fewer than two points, and
    where a value is not above 0."""
    if len(sizes) < 2 or min(values) <= 0:
        return None
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    middle, level = sum(xs) / len(xs), sum(ys) / len(ys)
    steepness = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True))
    return steepness / sum((x - middle) ** 2 for x in xs)
