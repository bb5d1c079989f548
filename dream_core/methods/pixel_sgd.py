"""SGD with momentum on the pixels, class by class."""

from torch import Tensor

from dream_core.synthetic import SyntheticSet


class PixelSGD:
    """What one optimiser over all pixels would do, for one class at a time: classes do not touch each other.

    Stepped jointly (DC), a class takes plain steps. IDC steps the whole tensor after every class, so that each class's
    pixels also coast by their momentum while the others take their turns: C − 1 steps with zero gradient between two
    of its own. Those steps are a geometric sum, taken here at once: `at_turn` tells where the ones before the class's
    own turn bring it, `step` does them, its own, and those after it.
    """

    def __init__(self, synthetic: SyntheticSet, lr: float, momentum: float, joint: bool = False):
        self.synthetic, self.lr, self.momentum, self.joint = synthetic, lr, momentum, joint
        self.momentum_buffer = synthetic.images.new_zeros(synthetic.images.shape)

    def at_turn(self, label: int) -> Tensor:
        """A class's pixels when its turn comes, as a leaf to take the gradient of. Changes nothing."""
        coasted = self.synthetic.of_class(label).detach().clone()
        return coasted.sub_(self._buffer(label), alpha=self._distance(self._before(label))).requires_grad_()

    def step(self, label: int, gradient: Tensor) -> None:
        """Bring a class to its turn, step it by its gradient, and let it coast through the turns after it."""
        self._coast(label, self._before(label))
        buffer = self._buffer(label).mul_(self.momentum).add_(gradient)
        self.synthetic.of_class(label).sub_(buffer, alpha=self.lr)
        self._coast(label, 0 if self.joint else self.synthetic.classes - 1 - label)

    def _before(self, label: int) -> int:
        return 0 if self.joint else label

    def _coast(self, label: int, steps: int) -> None:
        buffer = self._buffer(label)
        self.synthetic.of_class(label).sub_(buffer, alpha=self._distance(steps))
        buffer.mul_(self.momentum**steps)

    def _distance(self, steps: int) -> float:
        return self.lr * sum(self.momentum**n for n in range(1, steps + 1))

    def _buffer(self, label: int) -> Tensor:
        ipc = self.synthetic.ipc
        return self.momentum_buffer[label * ipc : (label + 1) * ipc]
