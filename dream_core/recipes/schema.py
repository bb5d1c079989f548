"""`Recipe` and `EvaluationRecipe`: what every method has in common, validated. Each family adds its own fields."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dream_core.catalog import NETWORKS

Augmentations = Annotated[
    str,
    StringConstraints(
        pattern=r"^(none|(color|crop|cutout|flip|scale|rotate)(_(color|crop|cutout|flip|scale|rotate))*)$"
    ),
]
"""Names of augmentation operators joined by `_`, as in `color_crop_cutout`; or `none`."""

Composition = Literal["stack", "one"]
"""`stack`: flip, color and cutout always where named, and one of the rest (IDC, DREAM). `one`: one operator of all
that are named, drawn for the whole batch (DSA, DM, MTT)."""

NetworkName = Annotated[str, Field(json_schema_extra={"enum": list(NETWORKS)})]
Norm = Literal["instance", "batch", "layer", "group", "none"]

Positive = Annotated[int, Field(ge=1, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0, lt=1e30, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Values(BaseModel, frozen=True):
    # pydantic forbids unknown names, so a misspelt override is an error and never a silent default
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Computed(Values, frozen=True):
    """How networks are computed: what changes results by rounding, and time by a lot."""

    compiled: Literal["auto", "on", "off"] = "auto"
    """Whether networks are computed by torch.compile; auto does so where it pays and a compiler is there."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions; auto is bfloat16 where `compiled` is on, or auto and worth it, and the device has bfloat16; else
    float32."""


class EvaluationRecipe(Computed, frozen=True):
    """How a set of images is judged: train fresh networks on it, test them on the real test set.

    The defaults are the protocol of IDC and DREAM; every method's own published protocol is its default.
    """

    mode: Literal["train", "replay", "soft"] = "train"
    """`train` on hard labels; `replay` the set's own gradient steps at its own rates (DD); `soft`: train on the
    stored outputs of a teacher (SRe2L)."""
    network: NetworkName = "convnet"
    """The network that is trained on the synthetic images."""
    depth: Annotated[int, Field(ge=1, le=7)] | None = None
    """Blocks of the ConvNet; none means 3 for 28 and 32 pixels, 4 for 64, 5 for 128."""
    width: Positive = 128
    """Filters in every block of the ConvNet."""
    norm: Norm | None = None
    """Normalisation; none means the network's usual one."""
    epochs: Positive = 1000
    """Passes over the decoded images; another number than the published one is marked in the result."""
    batch_size: Positive = 64
    """Minibatch of the training."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: Rate | Literal["learned"] = 0.01
    """Learning rate; `learned` takes the one that the set was distilled with (MTT)."""
    schedule: Literal["fifths", "tenth", "cosine"] = "fifths"
    """`fifths`: times 0.2 at 2/3 and at 5/6 of the epochs (IDC). `tenth`: times 0.1 once past the half, with a fresh
    optimiser (DC). `cosine`: down to 0."""
    warmup: Count = 0
    """Epochs in which `cosine` first rises from a hundredth."""
    momentum: Probability = 0.9
    """Momentum of SGD."""
    weight_decay: NotNegative = 5e-4
    """Weight decay of the training."""
    augmentation: Augmentations = "color_crop_flip_scale_rotate"
    """Operators, each image drawing its own parameters."""
    composition: Composition = "stack"
    """How operators go together. `stack`: flip, color and cutout always, and one of the rest. `one`: one of all, drawn
    for the whole batch."""
    mix_p: Probability = 0.5
    """Probability of CutMix, per minibatch."""
    temperature: Rate = 20.0
    """Of the softened distributions that `soft` compares."""
    temperature_squared: bool = False
    """Whether the soft loss is multiplied by the temperature's square."""
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


class Recipe(Values, frozen=True):
    """A distillation, completely: dataset, network, and in the family's own class what the method does with them."""

    length_field: ClassVar[str | None] = None
    """The field that says how long a run goes on, where a longer run begins as a shorter one does."""
    final_because: ClassVar[str] = ""
    """Where there is no such field: why a run that is over cannot go on."""

    method: str
    dataset: str
    """A built-in name, or `folder:PATH` for an ImageFolder tree or zip."""
    ipc: Positive
    """Stored synthetic images per class."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    image_size: Annotated[int, Field(ge=8, le=256)]
    """Side of the square images in pixels. Fixed by the dataset, free for `folder:`."""

    network: NetworkName = "convnet"
    """The network that the images are distilled with."""
    depth: Annotated[int, Field(ge=1, le=7)]
    """Blocks of the ConvNet: 3 for 28 and 32 pixels, 4 for 64, 5 for 128."""
    width: Positive = 128
    """Filters in every block of the ConvNet."""
    norm: Norm = "instance"
    """Normalisation between the network's layers."""
    activation: Literal["relu", "sigmoid", "leaky_relu", "swish"] = "relu"
    """Of the ConvNet."""
    pooling: Literal["average", "max", "none"] = "average"
    """Of the ConvNet, after every block."""

    evaluation: EvaluationRecipe

    whole_because: ClassVar[str] = ""
    """Why several devices cannot share a run, class by class; empty where they can."""

    @property
    def steps(self) -> int:
        """Steps in all, those of its phases before and after the distillation included."""
        raise NotImplementedError

    @property
    def real_images_to_start(self) -> int:
        """Real images of each class that the initialisation takes."""
        return 0

    @property
    def indivisible(self) -> str:
        """Why several devices cannot share this run; empty where they can, each with classes of its own."""
        return self.whole_because

    def problems(self) -> list[tuple[str, str]]:
        """What does not fit together, as (field, what to do)."""
        return []


class ClusteringRecipe(Recipe, frozen=True):
    """Where real images are chosen by k-means inside each class, in a network's features."""

    clustering: Literal["auto", "cuml", "torch", "sklearn"] = "auto"
    """What computes k-means: cuML on NVIDIA GPUs, PyTorch, or scikit-learn; auto is cuML where it is, else PyTorch."""
    clustering_init: Literal["k-means++", "random"] = "random"
    """Starting centres: k-means++, or distinct random images."""
    clustering_iterations: Positive = 100
    """Iterations of k-means, at most."""
    per_cluster: Positive = 1
    """Real images taken per cluster."""
    embedding_chunk: Positive = 128
    """Images embedded at a time; bounds memory, and changes the result by rounding only (norm=batch aside)."""
    normalize_for_selection: bool = False
    """Normalise images before they are embedded for clustering. The official code does not."""
    official: bool = False
    """Cluster exactly as the official code: start with replacement, empty clusters at zero, duplicates kept."""


def work_to_compile(recipe: Recipe | EvaluationRecipe, images: int, size: int) -> int:
    """Multiplications of the largest layer, forward, for so many images of this side; 0 where a network is not compiled
    unasked."""
    if recipe.network != "convnet" or recipe.norm == "batch":
        return 0
    return images * size**2 * recipe.width**2 * 9 // 4
