"""`Recipe`: every value that decides a distillation, validated. The same recipe and seed give the same bytes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Augmentations = Annotated[
    str,
    StringConstraints(
        pattern=r"^(none|(color|crop|cutout|flip|scale|rotate)(_(color|crop|cutout|flip|scale|rotate))*)$"
    ),
]
"""Names of augmentation operators joined by `_`, as in `color_crop_cutout`; or `none`."""

Positive = Annotated[int, Field(ge=1, lt=2**31)]
Rate = Annotated[float, Field(gt=0, lt=1e30, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Values(BaseModel):
    # pydantic forbids unknown names, so a misspelt override is an error and never a silent default
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EvaluationRecipe(_Values):
    """How a set of images is judged: train fresh networks on it, test them on the real test set.

    The defaults are the protocol of IDC and DREAM, as in `test.py` of both codes.
    """

    network: Literal["convnet"] = "convnet"
    """The network that is trained on the synthetic images."""
    epochs: Positive = 1000
    """Passes over the decoded images; 1000 is the published budget, any other is marked in the result."""
    batch_size: Positive = 64
    lr: Rate = 0.01
    """SGD learning rate; times 0.2 at 2/3 and at 5/6 of the epochs."""
    momentum: Probability = 0.9
    weight_decay: NotNegative = 5e-4
    augmentation: Augmentations = "color_crop_flip_scale_rotate"
    """Operators drawn per image: flip, color and cutout always where named, and one of the rest."""
    mix_p: Probability = 0.5
    """Probability of CutMix, per minibatch."""
    tests: Positive = 4
    """How often the test set is looked at while training: `best` is the best of these, `last` the last."""
    repeats: Positive = 3
    """Networks trained, each from its own initialisation; the score is their mean and deviation."""
    baselines: bool = True
    """Also judge as many random real images per class, under the same protocol."""
    ceiling: Literal["auto", "measure", "published", "none"] = "auto"
    """The whole training set's accuracy: measured, the published figure, or (auto) measured where affordable."""
    ceiling_epochs: Positive | None = None
    """Epochs to measure the ceiling with, where the protocol's own are too many; marked in the result."""


class Recipe(_Values):
    """A distillation, completely: dataset, formation, initialisation, selection, objective, networks, budget."""

    method: Literal["idc", "dream"]
    dataset: str
    """A built-in name, or `folder:PATH` for an ImageFolder tree or zip."""
    ipc: Positive
    """Stored synthetic images per class. Each decodes to `factor`² training images."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    image_size: Annotated[int, Field(ge=8, le=256)]
    """Side of the square images in pixels. Fixed by the dataset, free for `folder:`."""

    network: Literal["convnet"] = "convnet"
    """The network whose gradients are matched."""
    depth: Annotated[int, Field(ge=1, le=7)]
    """Blocks of the ConvNet: 3 for 28 and 32 pixels, 4 for 64, 5 for 128."""
    width: Positive = 128
    """Filters in every block."""
    norm: Literal["instance", "batch", "layer", "group", "none"] = "instance"
    activation: Literal["relu", "sigmoid", "leaky_relu", "swish"] = "relu"
    pooling: Literal["average", "max", "none"] = "average"

    factor: Annotated[int, Field(ge=1, le=8)] = 2
    """Multi-formation factor: a stored image is a factor x factor grid of smaller ones."""
    formation: Literal["single", "multi", "bound"] = "single"
    init: Literal["noise", "first", "random", "representative"]
    """What the synthetic images start from."""

    selection: Literal["random", "representative"]
    """Which real images a step matches: DREAM's choice is `representative`."""
    interval: Positive = 10
    """Inner iterations between two clusterings."""
    per_cluster: Positive = 1
    """Real images taken per cluster: batch_real // per_cluster clusters are formed."""
    clustering: Literal["auto", "cuml", "torch", "sklearn"] = "auto"
    clustering_init: Literal["k-means++", "random"] = "random"
    """Starting centres: k-means++, or distinct random images."""
    clustering_iterations: Positive = 100
    embedding_chunk: Positive = 128
    """Images embedded at a time; bounds memory, and changes the result by rounding only (norm=batch aside)."""
    normalize_for_selection: bool = False
    """Normalise images before they are embedded for clustering. The official code does not."""
    official: bool = False
    """Cluster exactly as the official code: start with replacement, empty clusters at zero, duplicates kept."""

    metric: Literal["mse", "l1", "cosine"]
    """Distance of convolution gradients: sum of squares, sum of absolute differences, or row-wise cosine."""
    batch_real: Positive
    batch_syn_max: Positive = 128
    """Decoded synthetic images of a class matched at a time; of more, a random choice."""
    lr_img: Rate
    """Learning rate of the pixels, already scaled by ipc / 10 · (size / base)²."""
    momentum_img: Probability = 0.5
    augmentation: Augmentations = "color_crop_cutout"
    """Siamese: one draw for the real and the synthetic images of a class."""

    outer_iterations: Positive = 2000
    """Fresh networks. The published code runs 2000, the DREAM paper says 1200."""
    inner_iterations: Positive = 100
    """Inner iterations per network: match every class once, then train the network."""
    n_data: Positive
    """Real images that the network is trained on per inner iteration."""
    lr_net: Rate = 0.01
    momentum_net: Probability = 0.9
    weight_decay_net: NotNegative = 5e-4
    augmentation_net: Augmentations = "color_crop"
    mix_p_net: Probability = 0.5

    evaluation: EvaluationRecipe

    @property
    def steps(self) -> int:
        """Inner iterations in all."""
        return self.outer_iterations * self.inner_iterations
