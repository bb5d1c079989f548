"""SRe2L: its hyperparameters and the published values."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dream_core.recipes.choice import Choice
from dream_core.recipes.schema import Count, NotNegative, Positive, Probability, Rate, Recipe


class RecoveryRecipe(Recipe, frozen=True):
    """Train a teacher, recover images from its batch statistics, have it label many views of them."""

    final_because: ClassVar[str] = "the learning rate of its images falls to 0 over `iterations`; set more of them"
    whole_because: ClassVar[str] = "images of all classes are matched with the statistics of one batch"

    method: Literal["sre2l"]

    squeeze_epochs: Positive
    """Passes over the real images that the teacher is trained for. It is kept, and shared by all jobs of its
    settings."""
    squeeze_batch: Positive = 128
    """Minibatch of the teacher's training."""
    squeeze_lr: Rate = 0.1
    """Learning rate of the teacher; it falls to 0 by a cosine."""
    squeeze_momentum: Probability = 0.9
    """Momentum of the teacher's training."""
    squeeze_weight_decay: NotNegative = 5e-4
    """Weight decay of the teacher's training."""
    squeeze_warmup: Count = 0
    """Epochs in which the teacher's rate rises from a hundredth."""
    teacher_seed: Count = 0
    """Seeds the teacher, apart from `seed`."""

    iterations: Positive = 1000
    """Adam steps for every image; the rate falls to 0 by a cosine."""
    lr_img: Rate = 0.25
    """Adam's learning rate of the pixels."""
    batch_syn: Positive = 100
    """Images recovered together, of as many classes: their statistics are matched as one batch."""
    r_bn: NotNegative = 0.01
    """Weight of the distance between batch statistics and running ones."""
    first_bn: NotNegative = 10.0
    """Weight of the first normalisation among the others."""
    roll: Count = 4
    """Images are rolled by up to so many pixels at every step."""
    roll_back: bool = False
    """Whether they are rolled in both directions."""
    crop_and_flip: bool = False
    """Whether every step also sees a random resized crop, mirrored half the time."""

    label_epochs: Positive
    """Views of every image that the teacher labels; an evaluation of more epochs begins again."""
    view: Literal["shift", "resized"] = "shift"
    """A view is the image shifted by up to an eighth, or a resized crop of 8 to 100 % of its area."""
    flip: bool = True
    """Whether images are mirrored half the time, for the teacher and in the views that it labels."""
    mixing: Literal["none", "cutmix", "mixup"] = "mixup"
    """Every view is mixed with that of another image."""
    mixup_alpha: Annotated[float, Field(gt=0, le=2)] = 0.8
    """Both parameters of the beta distribution that mixing draws its share from."""

    @property
    def steps(self) -> int:
        """Epochs of the teacher, Adam steps of one image per class after another, epochs of labels."""
        return self.squeeze_epochs + self.ipc * self.iterations + self.label_epochs

    def problems(self) -> list[tuple[str, str]]:
        if self.norm != "batch":
            return [("params.norm", "images are recovered from batch statistics; use a network with norm=batch")]
        return []


SOURCE = "SRe2L (Yin et al. 2023) and its code"
PUBLISHED = {"sre2l": {"cifar100": (50,), "tinyimagenet": (50, 100)}}

_CIFAR: dict[str, Any] = {"squeeze_epochs": 200, "label_epochs": 400}
_TINY: dict[str, Any] = {
    "squeeze_epochs": 50, "squeeze_batch": 256, "squeeze_lr": 0.2, "squeeze_weight_decay": 1e-4, "squeeze_warmup": 5,
    "iterations": 4000, "lr_img": 0.1, "r_bn": 1.0, "roll_back": True, "crop_and_flip": True,
    "label_epochs": 100, "view": "resized", "mixing": "none",
}  # fmt: skip
_EVALUATION: dict[str, Any] = {
    "mode": "soft", "network": "resnet18", "norm": "batch", "schedule": "cosine", "augmentation": "none", "mix_p": 0.0,
}  # fmt: skip


def settings(choice: Choice) -> dict[str, Any]:
    """Values of `RecoveryRecipe`: those of TinyImageNet, or of CIFAR-100 for all others."""
    values = dict(_TINY if choice.dataset == "tinyimagenet" else _CIFAR)
    if choice.dataset == "tinyimagenet":
        judged = {"optimizer": "sgd", "lr": 0.2, "weight_decay": 1e-4, "batch_size": 256, "temperature_squared": True}
        judged["warmup"] = 5
    else:
        judged = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01, "batch_size": 128, "temperature": 30.0}
    judged["epochs"] = values["label_epochs"] = choice.whole("label_epochs", values["label_epochs"])
    judged = _EVALUATION | judged | choice.of_the_network()
    return values | {"network": "resnet18", "norm": "batch", "flip": choice.flips, "evaluation": judged}
