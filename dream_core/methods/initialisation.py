"""What the pixels start from: noise, or real images, random or representative."""

import torch
from torch import Tensor

from dream_core.datasets import LabeledImages
from dream_core.images import Transform, to_unit
from dream_core.networks import Embedding
from dream_core.randomness import stream
from dream_core.ranks import ALONE, Ranks
from dream_core.recipes import MatchingRecipe
from dream_core.selection import Representatives
from dream_core.synthetic import noise, tile


def initial_images(
    recipe: MatchingRecipe,
    train: LabeledImages,
    representatives: Representatives,
    network: Embedding,
    space: Transform | None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """The first images in their space: float [classes · ipc, C, H, W], real ones tiled into the factor's grid.

    `representative` takes the k-means representatives, in the features of the network of outer iteration 0.
    """
    count, shape = recipe.ipc * recipe.factor**2, train.images.shape[1:]
    if recipe.init == "noise":
        generator = stream(recipe.seed, "init")
        if space is not None:
            return torch.randn(recipe.ipc * train.classes, *shape, generator=generator)
        return noise(recipe.ipc * train.classes, shape, generator)
    grids = []
    for label in ranks.own(train.classes):
        images = train.of_class(label)
        match recipe.init:
            case "first":
                chosen = torch.arange(count)
            case "random":
                chosen = torch.randperm(len(images), generator=stream(recipe.seed, "init", label))[:count]
            case _:
                chosen = representatives(images, network, count, ("init", label), per_cluster=1)
        grids.append(tile(to_unit(images[chosen]), recipe.factor))
    pixels = torch.cat(ranks.gather(grids, train.classes))
    return space(pixels) if space else pixels
