"""The matching family, DC, DSA, DM, IDC, DREAM and DREAM+: its hyperparameters and the published values."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dream_core.recipes.choice import Choice, between
from dream_core.recipes.protocols import dc_protocol, dsa_strategy, idc_protocol
from dream_core.recipes.schema import (
    Augmentations,
    ClusteringRecipe,
    Composition,
    Computed,
    Count,
    NotNegative,
    Positive,
    Probability,
    Rate,
    work_to_compile,
)

Base = Literal["dc", "dsa", "dm", "idc"]

_WORTH_COMPILING = 2**31
"""Multiplications of a batch of real images in the largest layer: about a tenth of a second for a class."""


class MatchingRecipe(ClusteringRecipe, Computed, frozen=True):
    """Learn images that match real ones: what is compared, which real images, what they start from, how they are kept.

    The defaults are IDC's.
    """

    length_field: ClassVar[str | None] = "outer_iterations"

    method: Literal["dc", "dsa", "dm", "idc", "dream", "dream+"]
    base: Base = "idc"
    """The method that DREAM is plugged into."""

    factor: Annotated[int, Field(ge=1, le=8)] = 2
    """Multi-formation factor: a stored image is a factor x factor grid of smaller ones."""
    formation: Literal["single", "multi", "bound"] = "single"
    """How a stored image is decoded: at the factor alone, at every factor up to it, or at most 128 images of a class
    in all."""
    space: Literal["pixels", "normalized"] = "pixels"
    """Where the pixels are learned: in [0, 1], clamped when a network is new; or normalised and never clamped."""
    init: Literal["noise", "first", "random", "representative"]
    """What the synthetic images start from. DREAM's choice is `representative`."""

    selection: Literal["random", "representative"]
    """Which real images a step matches. DREAM's choice is `representative`."""
    real_order: Literal["cycle", "independent"] = "cycle"
    """Random batches walk through a shuffled class, or every batch is drawn anew."""
    interval: Positive = 10
    """Inner iterations between two clusterings, counted anew for every network; over networks where those live
    shorter than the interval."""
    staggered: bool = False
    """Give each class a turn of its own within the interval, counted over all networks, so that no step but the first
    clusters them all. A fresh network is matched with its predecessor's choice until it is the class's turn."""
    pool: Count = 0
    """Images of a class that a clustering looks at, drawn anew for each; 0: all."""
    warm_start: bool = False
    """Start k-means from the images chosen last with the same network, where it now puts them."""
    ranking: Literal["each", "closest"] = "each"
    """The images nearest to each centre; or as many clusters as images, and the images closest to their own centre."""

    objective: Literal["gradient", "feature", "both"] = "gradient"
    """What is compared: loss gradients, mean features, or (DREAM+) both."""
    metric: Literal["mse", "l1", "l1_mean", "cosine", "cosine_all"]
    """Distance: sum of squares, sum of absolute differences, sum of their means over outputs, cosine row by row, or
    one cosine of everything."""
    matched: Literal["convolutions", "matrices", "all"] = "convolutions"
    """Whose gradients are compared: convolutions (IDC), every weight with rows (DC), or every parameter."""
    batch_real: Positive
    """Real images of a class that a step matches."""
    batch_syn_max: Positive = 128
    """Decoded synthetic images of a class matched at a time; of more, a random choice."""
    lr_img: Rate
    """Learning rate of the pixels, already scaled by ipc / 10 · (size / base)² for IDC and DREAM."""
    momentum_img: Probability = 0.5
    """Momentum of the pixels."""
    image_step: Literal["class", "joint"] = "class"
    """One optimiser step of all images after every class (IDC), or one after all classes (DC)."""
    augmentation: Augmentations = "color_crop_cutout"
    """Siamese: one draw for the real and the synthetic images of a class."""
    composition: Composition = "stack"
    """How the operators of `augmentation` and `augmentation_net` go together."""

    outer_iterations: Positive = 2000
    """Fresh networks. The published code of DREAM runs 2000, its paper says 1200."""
    inner_iterations: Positive = 100
    """Inner iterations per network: match every class once, then train the network."""
    network_data: Literal["real", "synthetic", "none"] = "real"
    """What the network is trained on between two inner iterations."""
    n_data: Positive = 2000
    """Real images that the network is trained on per inner iteration."""
    epochs_net: Count = 1
    """Passes over the synthetic images that the network is trained for per inner iteration."""
    batch_net: Positive = 256
    """Minibatch of the training on synthetic images."""
    warmup_epochs: NotNegative = 0.0
    """Passes over the real images before a fresh network is matched with (DREAM+: 1)."""
    lr_net: Rate = 0.01
    """Learning rate of the network."""
    momentum_net: Probability = 0.9
    """Momentum of the network's training."""
    weight_decay_net: NotNegative = 5e-4
    """Weight decay of the network's training."""
    augmentation_net: Augmentations = "color_crop"
    """Operators while the network is trained, each image drawing its own parameters."""
    mix_p_net: Probability = 0.5
    """Probability of CutMix while the network is trained, per minibatch."""

    @property
    def steps(self) -> int:
        """Inner iterations in all."""
        return self.outer_iterations * self.inner_iterations

    @property
    def interval_runs_on(self) -> bool:
        """Whether `interval` is counted over all networks, and not anew for each."""
        return self.staggered or self.inner_iterations < self.interval

    @property
    def real_images_to_start(self) -> int:
        return 0 if self.init == "noise" else self.ipc * self.factor**2

    @property
    def worth_compiling(self) -> bool:
        """Whether a few iterations take longer than compiling them does.

        It does not hang on how many there are: a run that is made longer must go on as it began.
        """
        return work_to_compile(self, self.batch_real, self.image_size) >= _WORTH_COMPILING

    @property
    def indivisible(self) -> str:
        return "batch normalisation mixes classes, set norm to another" if self.norm == "batch" else ""

    def problems(self) -> list[tuple[str, str]]:
        found = []
        if self.image_size // self.factor < 2:
            told = f"a grid of {self.factor} x {self.factor} does not fit {self.image_size} pixels"
            found.append(("params.factor", f"{told}; use at most {self.image_size // 2}"))
        if self.per_cluster > self.batch_real:
            found.append(("params.per_cluster", f"must not exceed batch_real, which is {self.batch_real}"))
        if self.compiled == "on" and self.norm == "batch":
            found.append(("params.compiled", "batch normalisation is not compiled; use auto or off"))
        if 0 < self.pool < self.batch_real:
            found.append(("params.pool", f"must hold batch_real = {self.batch_real} images; use more, or 0 for all"))
        if self.warm_start and self.inner_iterations <= self.interval:
            told = f"needs networks that are clustered with twice; set interval below {self.inner_iterations}"
            found.append(("params.warm_start", f"{told}, or leave it out"))
        for name in ("staggered", "pool", "warm_start"):
            if self.official and getattr(self, name):
                found.append((f"params.{name}", "is not what the official code does; leave it or `official` out"))
        if self.method not in ("dream", self.base, "dream+"):
            found.append(("params.base", f"is for dream; leave it out, or set method to dream or {self.base}"))
        if self.method == "dream+" and self.base != "idc":
            found.append(("params.base", "dream+ is published on idc alone; set method to dream for other bases"))
        return found


# ---------------------------------------------------------------- published values

# dataset -> what IDC and DREAM set for it (`--reproduce` of both codes); `lr_base` is scaled below
_IDC_BY_DATASET: dict[str, dict[str, Any]] = {
    "cifar10": {"metric": "mse", "lr_base": 5e-3, "n_data": 2000},
    "cifar100": {"metric": "mse", "lr_base": 5e-3, "n_data": 2000},
    "svhn": {"metric": "mse", "lr_base": 5e-3, "n_data": 500},
    "mnist": {"metric": "l1", "lr_base": 1e-4, "n_data": 500},
    "fashion_mnist": {"metric": "l1", "lr_base": 1e-4, "n_data": 500},
    "tinyimagenet": {"metric": "mse", "lr_base": 5e-3, "n_data": 1000},
}

# Not published: digits and folders take the nearest published settings.
_HOUSE: dict[str, dict[str, Any]] = {
    "digits": {"metric": "mse", "lr_base": 5e-3, "n_data": 500, "factor": 1},
    "folder": {"metric": "mse", "lr_base": 5e-3, "n_data": 1000},
}

# IDC scales by (size / base)². The base is 28 for MNIST alone: FashionMNIST, also 28 pixels, is divided by 32.
_BASE_SIZE = {"mnist": 28, "digits": 8}

# DC: ipc -> (inner iterations per network, passes over the synthetic images after each of them)
DC_LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10), 100: (100, 2)}

_DC: dict[str, Any] = {
    "factor": 1, "space": "normalized", "init": "noise", "selection": "random", "real_order": "independent",
    "objective": "gradient", "metric": "cosine", "matched": "matrices", "batch_real": 256,
    "lr_img": 0.1, "image_step": "joint", "augmentation": "none", "composition": "one",
    "outer_iterations": 1000, "network_data": "synthetic", "augmentation_net": "none", "mix_p_net": 0.0,
    "momentum_net": 0.0, "weight_decay_net": 0.0,
}  # fmt: skip

PUBLISHED = {
    "dc": {"mnist": (1, 10, 50), "fashion_mnist": (1, 10, 50), "svhn": (1, 10, 50), "cifar10": (1, 10, 50),
           "cifar100": (1, 10)},
    "dsa": {"mnist": (1, 10, 50), "fashion_mnist": (1, 10, 50), "svhn": (1, 10, 50), "cifar10": (1, 10, 50),
            "cifar100": (1, 10, 50)},
    "dm": {"mnist": (1, 10, 50), "cifar10": (1, 10, 50), "cifar100": (1, 10, 50), "tinyimagenet": (1, 10, 50)},
    **{method: dict.fromkeys(_IDC_BY_DATASET, (1, 10, 50)) for method in ("idc", "dream", "dream+")},
}  # fmt: skip
"""Method -> dataset -> IPCs whose default settings the papers ran. DREAM on other bases is not among them."""

SOURCES = {
    "dc": "DC (Zhao et al. 2021) and its code",
    "dsa": "DSA (Zhao & Bilen 2021) and its code",
    "dm": "DM (Zhao & Bilen 2023) and its code",
    "idc": "IDC (Kim et al. 2022), --reproduce of its code",
    "dream": "DREAM (Liu et al. 2023), --reproduce of its code; on bases other than idc batch and interval are ours",
    "dream+": "DREAM+ (Liu et al. 2023b), --reproduce of its code",
}


def settings(choice: Choice) -> dict[str, Any]:
    """Everything that the papers fix for this choice, as values of `MatchingRecipe`, the evaluation nested."""
    method, base = choice.method, choice.params.get("base")
    if method != "dream" or base is None:
        base = "idc" if method.startswith("dream") else method
    values = _idc(choice) if base == "idc" else _dc(choice, base)
    if method.startswith("dream"):
        values |= {"init": "representative", "selection": "representative"}
        if base == "idc" and choice.dataset != "tinyimagenet":
            values["batch_real"] = 128
        if base == "dm":  # a fresh network every iteration; decision 0008 measures how often to cluster
            values["interval"] = 10
    if method == "dream+":
        values |= {"objective": "both", "warmup_epochs": 1.0}
        if choice.dataset == "tinyimagenet":
            values["ranking"] = "closest"
    return {"base": base} | values


def _idc(choice: Choice) -> dict[str, Any]:
    values = dict(_IDC_BY_DATASET.get(choice.dataset) or _HOUSE.get(choice.dataset) or _HOUSE["folder"])
    lr_base = values.pop("lr_base")
    values = {"factor": 2, "init": "first", "selection": "random", "batch_real": 64} | values
    factor = values["factor"] = choice.whole("factor", values["factor"])
    if choice.dataset == "tinyimagenet" and choice.ipc == 50:
        lr_base = 1e-6
    if choice.dataset == "mnist" and factor > 1:  # no CutMix and no cutout
        values |= {"augmentation": "color_crop", "mix_p_net": 0.0}
    values["lr_img"] = lr_base * choice.ipc / 10 * (choice.image_size / _BASE_SIZE.get(choice.dataset, 32)) ** 2
    values["evaluation"] = idc_protocol(choice.dataset, choice.ipc, factor, choice.flips)
    return values


def _dc(choice: Choice, base: str) -> dict[str, Any]:
    """DC, and what DSA and DM change of it."""
    inner, epochs_net = between(DC_LOOPS, choice.ipc)
    factor = choice.whole("factor", 1)
    values = _DC | {"inner_iterations": inner, "epochs_net": epochs_net, "batch_syn_max": choice.ipc * factor**2}
    strategy = dsa_strategy(choice.flips)
    if base == "dc":  # judged without augmentation, but for MNIST
        values["evaluation"] = dc_protocol("crop_scale_rotate" if choice.dataset == "mnist" else "none")
        return values
    values |= {"init": "random", "augmentation": strategy, "evaluation": dc_protocol(strategy)}
    if base == "dsa":
        return values | {"augmentation_net": strategy}
    large = choice.dataset == "cifar10" and choice.ipc >= 100
    values |= {"objective": "feature", "metric": "mse", "lr_img": 10.0 if large else 1.0}
    return values | {"outer_iterations": 20_000, "inner_iterations": 1, "network_data": "none", "epochs_net": 0}
