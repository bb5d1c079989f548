"""Training a network on labelled images: augment, CutMix, cross-entropy, SGD."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_core.augmentation import augment, draw_cutmix, draw_one, draw_stack
from dream_core.datasets import LabeledImages
from dream_core.errors import Diverged
from dream_core.images import Transform, to_unit
from dream_core.randomness import Shuffle, stream
from dream_core.subject import TrainingSet

LabeledBatch = tuple[Tensor, Tensor]
"""Network inputs float [n, C, H, W] and int64 labels [n]."""

DRAWS = {"stack": draw_stack, "one": draw_one}


def sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """The optimiser of networks: plain SGD over all parameters."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def fetcher(
    labelled: LabeledImages | TrainingSet, transform: Transform, device: torch.device
) -> Callable[[Tensor], LabeledBatch]:
    """What makes network inputs and labels of indices, int64 [n], into labelled images."""

    def fetch(batch: Tensor) -> LabeledBatch:
        return transform(to_unit(labelled.images[batch], device)), labelled.labels[batch].to(device)

    return fetch


@dataclass(frozen=True)
class Augmentation:
    """How images are varied while a network is trained on them: operators, their composition, CutMix's probability."""

    strategy: str = "none"
    composition: str = "stack"
    mix_p: float = 0.0


def training_step(
    network: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    how: Augmentation,
    generator: torch.Generator,
) -> Tensor:
    """Train on one minibatch of network inputs [N, C, H, W], int64 labels [N]; return the loss, detached.

    Every image gets its own parameters of the augmentation; CutMix follows with its probability.
    """
    size = images.shape[-1]
    images = augment(images, DRAWS[how.composition](how.strategy, len(images), size, generator))
    cutmix = draw_cutmix(len(images), size, how.mix_p, generator)
    if cutmix is None:
        loss = F.cross_entropy(network(images), labels)
    else:
        loss = cutmix.loss(network(cutmix.paste(images)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def warm_cosine(epoch: int, epochs: int, warmup: int = 0) -> float:
    """What a schedule leaves of the learning rate in an epoch, counted from 0: a straight rise from a hundredth over
    `warmup` epochs, then a cosine to 0."""
    if epoch < warmup:
        return 0.01 + 0.99 * epoch / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def train_epoch(
    network: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Shuffle,
    epoch: int,
    fetch: Callable[[Tensor], LabeledBatch],
    how: Augmentation,
    seed: int,
    key: tuple[str | int, ...],
) -> float:
    """One pass: `fetch` gives inputs and labels of a batch's indices. Returns the mean loss.

    Draws come from the streams `(*key, number)`, by the batch's number over all epochs.
    """
    losses = []
    for number in range(epoch * batches.per_pass, (epoch + 1) * batches.per_pass):
        inputs, labels = fetch(batches[number])
        losses.append(training_step(network, optimizer, inputs, labels, how, stream(seed, *key, number)))
    return float(torch.stack(losses).mean())


def pretrain_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Shuffle,
    epoch: int,
    fetch: Callable[[Tensor], LabeledBatch],
    how: Augmentation,
    seed: int,
    key: tuple[str | int, ...],
    told: str,
) -> float:
    """`train_epoch` before a distillation. Raises Diverged, with what `told` makes of the loss, where it is no longer
    finite; network and momentum are then as they were."""
    before = saved(network_state(network, optimizer))
    loss = train_epoch(network, optimizer, batches, epoch, fetch, how, seed, key)
    if not loss < float("inf"):
        optimizer.state.clear()
        load_network_state(network, optimizer, before)
        raise Diverged(told.format(loss=loss))
    return loss


# ---------------------------------------------------------------- saving and resuming


def network_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and momentum by name."""
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        if (buffer := optimizer.state[parameter].get("momentum_buffer")) is not None:
            state[f"network_momentum.{name}"] = buffer
    return state


def load_network_state(network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Take back what `network_state` gave."""
    network.load_state_dict(under("network.", state))
    momentum = under("network_momentum.", state)
    for name, parameter in network.named_parameters():
        if name in momentum:
            buffer = torch.empty_like(parameter.detach()).copy_(momentum[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer


def saved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, contiguous, that later steps do not change."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
