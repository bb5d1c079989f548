"""MTT: its hyperparameters and the published values."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dream_core.recipes.choice import Choice
from dream_core.recipes.protocols import dc_protocol, dsa_strategy
from dream_core.recipes.schema import Augmentations, NotNegative, Positive, Probability, Rate, Recipe


class TrajectoryRecipe(Recipe, frozen=True):
    """Learn images on which a network walks the way that experts walked on real ones."""

    length_field: ClassVar[str | None] = "iterations"
    whole_because: ClassVar[str] = "a student is trained on images of all classes at once"

    method: Literal["mtt"]
    zca: bool = False
    """Whiten images instead of normalising them; the artifact carries the transform and its inverse."""
    zca_eps: Rate = 0.1
    """Added to the variances before whitening divides by them."""
    init: Literal["random", "noise"] = "random"
    """What the synthetic images start from: random real images, or noise."""
    augmentation: Augmentations = "color_crop_cutout_flip_scale_rotate"
    """One operator per minibatch, each image drawing its own parameters: for experts, students and evaluation."""

    experts: Positive = 100
    """Networks trained on the real images. They are kept, and shared by all jobs of the same experts' settings."""
    expert_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seeds the experts, apart from `seed`: so that other seeds of the images meet the same experts."""
    lr_expert: Rate = 0.01
    """Learning rate of the experts."""
    momentum_expert: Probability = 0.0
    """Momentum of the experts' training."""
    weight_decay_expert: NotNegative = 0.0
    """Weight decay of the experts' training."""
    batch_expert: Positive = 256
    """Minibatch of the experts' training."""

    iterations: Positive = 5000
    """Steps of the images, once there are experts."""
    max_start_epoch: Positive
    """The student starts at an expert's epoch below this one."""
    expert_epochs: Positive
    """Epochs that the expert is ahead of the student's start."""
    student_steps: Positive
    """Gradient steps that the student takes on the synthetic images to get there."""
    batch_syn: Positive | None = None
    """Synthetic images per student step; none means all."""
    lr_img: Rate
    """Learning rate of the pixels."""
    momentum_img: Probability = 0.5
    """Momentum of the pixels and of the step size."""
    lr_student: Rate
    """What the student's learnable step size starts from. It is kept positive."""
    lr_lr: Rate
    """Learning rate of the step size."""

    @property
    def epochs_per_expert(self) -> int:
        """An expert is trained no longer than students look at it: the last start, and `expert_epochs` beyond it."""
        return self.max_start_epoch - 1 + self.expert_epochs

    @property
    def steps(self) -> int:
        """Epochs of the experts, then iterations."""
        return self.experts * self.epochs_per_expert + self.iterations

    @property
    def real_images_to_start(self) -> int:
        return 0 if self.init == "noise" else self.ipc

    def problems(self) -> list[tuple[str, str]]:
        if self.norm == "batch":
            return [("params.norm", "a student's path cannot be followed through batch statistics; use instance")]
        return []


SOURCE = "MTT (Cazenavette et al. 2022); values as its authors gave them to DC-BENCH"

# dataset -> ipc -> (student steps, expert epochs, max start, lr_img, lr_lr, lr_student, batch_syn, zca)
_TABLE: dict[str, dict[int, tuple[int, int, int, float, float, float, int | None, bool]]] = {
    "cifar10": {
        1: (50, 2, 2, 100.0, 1e-7, 0.01, None, True),
        10: (30, 2, 20, 100.0, 1e-5, 0.001, None, True),
        50: (30, 2, 40, 1000.0, 1e-5, 0.001, None, False),
    },
    "cifar100": {
        1: (20, 3, 20, 1000.0, 1e-5, 0.01, None, True),
        10: (20, 2, 20, 1000.0, 1e-5, 0.01, None, False),
        50: (80, 2, 40, 1000.0, 1e-5, 0.01, 125, True),
    },
    "tinyimagenet": {
        1: (10, 2, 10, 1e4, 1e-4, 0.01, None, False),
        10: (20, 2, 40, 1e4, 1e-4, 0.01, 200, False),
        50: (20, 2, 40, 1e4, 1e-4, 0.01, 300, False),
    },
}
_FIELDS = ("student_steps", "expert_epochs", "max_start_epoch", "lr_img", "lr_lr", "lr_student", "batch_syn", "zca")

PUBLISHED = {"mtt": {dataset: tuple(by_ipc) for dataset, by_ipc in _TABLE.items()}}


def settings(choice: Choice) -> dict[str, Any]:
    """Values of `TrajectoryRecipe`. An IPC between the published ones takes those of the nearest below; other
    datasets take CIFAR-10's, without whitening."""
    by_ipc = _TABLE.get(choice.dataset) or _TABLE["cifar10"]
    values = dict(zip(_FIELDS, by_ipc[max((n for n in by_ipc if n <= choice.ipc), default=1)], strict=True))
    if choice.dataset not in _TABLE:
        values |= {"zca": False, "lr_student": 0.01, "lr_lr": 1e-5}
    strategy = dsa_strategy(choice.flips)
    return values | {"augmentation": strategy, "evaluation": dc_protocol(strategy) | {"lr": "learned"}}
