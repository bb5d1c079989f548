"""Coresets: real images, chosen and not learned. What a distilled set is to be better than."""

from typing import Any, ClassVar, Literal

from dream_core.recipes.choice import Choice
from dream_core.recipes.protocols import idc_protocol
from dream_core.recipes.schema import ClusteringRecipe, Count, NotNegative, Positive, Probability, Rate


class CoresetRecipe(ClusteringRecipe, frozen=True):
    """Choose `ipc` real images of each class, in the features of a network."""

    final_because: ClassVar[str] = "its images are chosen once, not learned; set another seed"
    whole_because: ClassVar[str] = "choosing real images takes seconds"

    method: Literal["random", "herding", "k-center", "kmeans"]
    pretrain_epochs: Count = 0
    """Passes over the real images that the network whose features are used is trained for."""
    batch_net: Positive = 128
    """Minibatch of the network's training."""
    lr_net: Rate = 0.01
    """Learning rate of the network."""
    momentum_net: Probability = 0.9
    """Momentum of the network's training."""
    weight_decay_net: NotNegative = 5e-4
    """Weight decay of the network's training."""

    @property
    def steps(self) -> int:
        """Epochs of the network, then one step that chooses."""
        return self.pretrain_epochs + 1

    @property
    def real_images_to_start(self) -> int:
        return self.ipc


SOURCE = "Welling 2009 (herding), Sener & Savarese 2018 (k-center); judged by the protocol of IDC and DREAM"
PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {}


def settings(choice: Choice) -> dict[str, Any]:
    """Values of `CoresetRecipe`. Herding and k-center want trained features; k-means takes DREAM's untrained ones."""
    trained = choice.method in ("herding", "k-center")
    protocol = idc_protocol(choice.dataset, choice.ipc, 1, choice.flips)
    return {"pretrain_epochs": 10 if trained else 0, "evaluation": protocol}
