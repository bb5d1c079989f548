"""What a network holds for an image that goes through it, and by itself. Imports no torch.

The ConvNet's figures follow from its blocks, the others' were counted on the networks themselves; a test counts again.
"""

from dataclasses import dataclass

from dream_core.recipes.schema import EvaluationRecipe, Recipe

FLOAT_BYTES = 4
_PADDED = {28: 32}
"""The first convolution of ConvNet and others pads these sides."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """In floats: of an image on its way through a network, and of the network."""

    kept: float
    """Per image: what a pass forward keeps for the pass backward."""
    largest: float
    """Per image: the largest of its layers."""
    features: int
    """Per image: the features that are clustered."""
    parameters: float
    """Of the network, its classifier included."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """`kept` and `largest` are per pixel; `features` and `parameters` have a part that grows with the pixels."""

    kept: float
    largest: float
    features: tuple[float, float]
    parameters: tuple[float, float]


_COUNTED: dict[str, _Counted] = {
    "mlp": _Counted(4, 3, (128, 0), (5e4, 400)),
    "lenet": _Counted(20, 6, (84, 0), (2e4, 80)),
    "alexnet": _Counted(600, 128, (0, 3), (2e6, 0)),
    "vgg11": _Counted(450, 64, (512, 0), (9.3e6, 0)),
    "resnet18": _Counted(1200, 64, (512, 0), (11.2e6, 0)),
    "resnet18_ap": _Counted(1820, 128, (0, 8), (11.2e6, 0)),
    "resnet10": _Counted(700, 64, (512, 0), (5e6, 0)),
    "resnet10_narrow": _Counted(350, 32, (256, 0), (1.3e6, 0)),
    "resnet18_narrow": _Counted(600, 32, (256, 0), (2.9e6, 0)),
    "resnetap10": _Counted(1310, 128, (512, 0), (5e6, 0)),
    "densenet": _Counted(3770, 96, (384, 0), (1.1e6, 0)),
    "alexcifarnet": _Counted(300, 64, (192, 0), (2e5, 1540)),
    "torchvision:resnet18": _Counted(1200, 64, (512, 0), (11.2e6, 0)),
    "torchvision:resnet34": _Counted(2020, 64, (512, 0), (21.3e6, 0)),
    "torchvision:resnet50": _Counted(6450, 256, (2048, 0), (23.6e6, 0)),
    "torchvision:resnet101": _Counted(9920, 256, (2048, 0), (42.6e6, 0)),
    "torchvision:vgg11_bn": _Counted(430, 64, (4096, 0), (1.29e8, 0)),
    "torchvision:vgg16_bn": _Counted(680, 64, (4096, 0), (1.35e8, 0)),
    "torchvision:densenet121": _Counted(675, 24, (1024, 0), (7e6, 0)),
    "torchvision:mobilenet_v2": _Counted(400, 24, (1280, 0), (2.3e6, 0)),
    "torchvision:efficientnet_b0": _Counted(460, 24, (1280, 0), (4.1e6, 0)),
}
_SHRUNK: dict[str, _Counted] = {
    "resnet10": _Counted(315, 64, (512, 0), (5e6, 0)),
    "resnetap10": _Counted(440, 64, (512, 0), (5e6, 0)),
    "torchvision:resnet18": _Counted(112, 16, (512, 0), (11.2e6, 0)),
    "torchvision:resnet34": _Counted(163, 16, (512, 0), (21.3e6, 0)),
    "torchvision:resnet50": _Counted(435, 16, (2048, 0), (23.6e6, 0)),
    "torchvision:resnet101": _Counted(645, 16, (2048, 0), (42.6e6, 0)),
}
"""Networks whose first layers shrink images of more than 64 pixels."""


def footprint(recipe: Recipe, channels: int, classes: int) -> Footprint:
    """Of the network that a recipe distils with."""
    if recipe.network == "convnet":
        return _convnet(
            channels, classes, recipe.image_size, recipe.depth, recipe.width,
            norm=recipe.norm, in_place=recipe.activation == "relu", pooled=recipe.pooling != "none",
        )  # fmt: skip
    return _counted(recipe.network, channels, classes, recipe.image_size)


def footprint_of_judge(judge: EvaluationRecipe, channels: int, classes: int, size: int, depth: int) -> Footprint:
    """Of the network that a set is judged with; `depth` is that of a ConvNet for this size."""
    if judge.network == "convnet":
        return _convnet(channels, classes, size, judge.depth or depth, judge.width, norm=judge.norm)
    return _counted(judge.network, channels, classes, size)


def _convnet(
    channels: int, classes: int, size: int, depth: int, width: int,
    norm: str | None = "instance", in_place: bool = True, pooled: bool = True,
) -> Footprint:  # fmt: skip
    """A block keeps the output of each of its layers, but for an activation in place."""
    side = _PADDED.get(size, size)
    kept, largest, parameters = float(channels * size**2), float(width * side**2), 0.0
    for block in range(depth):
        layer = width * side**2
        layers = 1 + (norm != "none") + (not in_place)
        side = side // 2 if pooled else side
        kept += layers * layer + pooled * width * side**2
        parameters += 9 * width * (width if block else channels) + 3 * width + (2 * layer if norm == "layer" else 0)
    features = width * side**2
    return Footprint(kept, largest, features, parameters + (features + 1) * classes)


def _counted(network: str, channels: int, classes: int, size: int) -> Footprint:
    pixels = _PADDED.get(size, size) ** 2
    counted = _SHRUNK.get(network, _COUNTED[network]) if size > 64 else _COUNTED[network]
    features, parameters = (fixed + growing * pixels for fixed, growing in (counted.features, counted.parameters))
    more = max(0, channels - 3) * pixels
    return Footprint(
        counted.kept * pixels + more, counted.largest * pixels, round(features), parameters + (features + 1) * classes
    )
