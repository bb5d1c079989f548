"""One step of training a network on labelled images, as IDC and DREAM do it: augment, CutMix, cross-entropy, SGD."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream_core.augmentation import augment, draw_cutmix, draw_stack


def sgd(network: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """The optimiser of networks: plain SGD over all parameters."""
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    strategy: str,
    mix_p: float,
    generator: torch.Generator,
) -> Tensor:
    """Train on one minibatch of normalised images [N, C, H, W], int64 labels [N]; return the loss, detached.

    Every image gets its own augmentation (rule B); CutMix follows with probability `mix_p`.
    """
    size = images.shape[-1]
    images = augment(images, draw_stack(strategy, len(images), size, generator))
    cutmix = draw_cutmix(len(images), size, mix_p, generator)
    if cutmix is None:
        loss = F.cross_entropy(network(images), labels)
    else:
        loss = cutmix.loss(network(cutmix.paste(images)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
