"""What a distillation and its evaluation hold in memory at most, by what the recipe says. Imports no torch.

A run goes through phases (embedding a class, matching it, training a network, judging), and the C library keeps what
one has freed for the next (`dream_core.host.keep_freed_memory`). Whether larger blocks of the next find a place in it
is luck: the same run held 1.3 GB once and 1.7 another time. So the bound is the process, the images, what is kept
throughout, and the two largest phases side by side. All figures are of float32, as written: compiled networks in
bfloat16 take less.

On a GPU the network's share is the GPU's; there it is unmeasured.
"""

from collections.abc import Callable, Iterator

from dream_core.catalog import TORCHVISION_PREFIX, DatasetFacts
from dream_core.recipes import (
    ClusteringRecipe,
    CoresetRecipe,
    MatchingRecipe,
    Recipe,
    RecoveryRecipe,
    TrajectoryRecipe,
    UnrolledRecipe,
    convnet_depth,
)
from dream_core.recipes.footprints import FLOAT_BYTES, Footprint, footprint, footprint_of_judge
from dream_core.recipes.protocols import KEPT_INPUTS, TEST_BATCH

PROCESS_BYTES = 760 << 20
"""Python and PyTorch, and what its kernels keep for themselves."""
LIBRARIES_BYTES = 160 << 20
"""torchvision, SciPy or scikit-learn, where they are needed."""
READ_BY_LIBRARIES = ("digits", "mnist", "fashion_mnist", "svhn")
"""Datasets that they read."""

TRAINING, TRAINING_LAYERS = 1.2, 4.0
"""A pass forward and backward: times what the pass forward keeps, and as many of the largest layers."""
DOUBLE = 5.0
"""A gradient of which a gradient is taken, the graph of a graph: times what the pass forward keeps."""
UNROLLED = 6.5
"""The same where the gradient is taken of all weights and of the images (DD, MTT)."""
LAYERS = 3.0
"""Largest layers that a pass without gradients holds at a time."""
INPUTS = 8
"""Copies of a batch that are held while it is fetched, decoded and augmented."""
EMBEDDINGS = 5
"""Copies of a class's features: in parts and whole, centred, and squared (k-means, herding)."""
WEIGHTS = 8
"""Copies of a network's weights: gradients, momentum, those before an epoch, and a checkpoint of them."""
STORED = 8
"""Copies of the stored images: the optimiser's buffers, and a checkpoint of them all."""
DECODED = 5
"""Copies of the images that a network is trained on, as pixels, as inputs and as files."""
LOADING = 3
"""Copies of the real images as bytes while they are read and sorted."""


def memory_bound(recipe: Recipe, facts: DatasetFacts) -> int:
    """Bytes of the host that an attempt at a job holds at most, where it computes on the CPU.

    `facts` are the dataset's. Uploaded images are taken to be in memory as built-in ones are.
    """
    images = (facts.train + facts.test) * facts.channels * recipe.image_size**2
    phases = {*_phases(recipe, facts), *_judging(recipe, facts)}  # equal ones have equal blocks, and share them
    work = _kept(recipe, facts) + sum(sorted(phases)[-2:])
    return round(_process(recipe) + max(LOADING * images, images + work))


def _process(recipe: Recipe) -> int:
    networks = (recipe.network, recipe.evaluation.network)
    libraries = recipe.dataset in READ_BY_LIBRARIES or any(name.startswith(TORCHVISION_PREFIX) for name in networks)
    if isinstance(recipe, ClusteringRecipe):
        libraries |= recipe.clustering == "sklearn"
    return PROCESS_BYTES + libraries * LIBRARIES_BYTES


# ---------------------------------------------------------------- what a network does


def _training(foot: Footprint, count: int, pixels: int) -> float:
    return (TRAINING * foot.kept + TRAINING_LAYERS * foot.largest + INPUTS * pixels) * count * FLOAT_BYTES


def _double(foot: Footprint, count: int, pixels: int, times: float = DOUBLE) -> float:
    return (times * foot.kept + INPUTS * pixels) * count * FLOAT_BYTES


def _forward(foot: Footprint, count: int, pixels: int) -> float:
    return (LAYERS * foot.largest + 4 * pixels) * count * FLOAT_BYTES


def _clustering(foot: Footprint, facts: DatasetFacts, chunk: int, pixels: int, clusters: int) -> float:
    """A class's features, and its distances to the centres in float32 and float64."""
    count = largest_class(facts)
    scores = 4 * count * min(clusters, count) * 2 * FLOAT_BYTES
    return _forward(foot, min(chunk, count), pixels) + EMBEDDINGS * count * foot.features * FLOAT_BYTES + scores


def largest_class(facts: DatasetFacts) -> int:
    """Training images that a class has at most, by the size of the smallest."""
    return facts.train - (facts.classes - 1) * facts.smallest_class


# ---------------------------------------------------------------- throughout


def _kept(recipe: Recipe, facts: DatasetFacts) -> float:
    """The stored images and the network, with their optimisers and a checkpoint."""
    foot = footprint(recipe, facts.channels, facts.classes)
    stored = STORED * recipe.ipc * facts.classes * facts.channels * recipe.image_size**2
    return (stored + WEIGHTS * foot.parameters) * FLOAT_BYTES + _KEPT.get(type(recipe), _nothing)(recipe, facts)


def _nothing(recipe: Recipe, facts: DatasetFacts) -> float:
    return 0.0


def _experts(recipe: TrajectoryRecipe, facts: DatasetFacts) -> float:
    """The expert at work after every epoch, once more in a checkpoint; a student's steps; whitening in float64."""
    foot, dimensions = footprint(recipe, facts.channels, facts.classes), facts.channels * recipe.image_size**2
    paths = 4 * (recipe.epochs_per_expert + 1) + recipe.student_steps + 1
    whitening = 8 * dimensions**2 * 2 * FLOAT_BYTES if recipe.zca else 0
    return paths * foot.parameters * FLOAT_BYTES + whitening


def _unrolled_steps(recipe: UnrolledRecipe, facts: DatasetFacts) -> float:
    """The weights after every step."""
    steps = recipe.distill_epochs * recipe.distill_steps
    return (steps + 1) * footprint(recipe, facts.channels, facts.classes).parameters * FLOAT_BYTES


def _soft_labels(recipe: RecoveryRecipe, facts: DatasetFacts) -> float:
    """What the teacher says of every view, in float16: as a list, as one tensor, and twice in a checkpoint."""
    return 4 * recipe.label_epochs * recipe.ipc * facts.classes**2 * 2


_KEPT: dict[type[Recipe], Callable[..., float]] = {
    TrajectoryRecipe: _experts,
    UnrolledRecipe: _unrolled_steps,
    RecoveryRecipe: _soft_labels,
}


# ---------------------------------------------------------------- one phase after another


def _phases(recipe: Recipe, facts: DatasetFacts) -> Iterator[float]:
    """What each phase of the distillation holds while it lasts."""
    foot = footprint(recipe, facts.channels, facts.classes)
    yield from _PHASES[type(recipe)](recipe, facts, foot, facts.channels * recipe.image_size**2)


def _matching(recipe: MatchingRecipe, facts: DatasetFacts, foot: Footprint, pixels: int) -> Iterator[float]:
    """A class at a time; all classes together where features are matched under batch normalisation."""
    classes = facts.classes if recipe.objective == "feature" and recipe.norm == "batch" else 1
    real = min(recipe.batch_real, largest_class(facts)) * classes
    synthetic = min(decoded_of_class(recipe), recipe.batch_syn_max) * classes
    gradients = recipe.objective != "feature"
    yield _training(foot, real, pixels) if gradients else _forward(foot, real, pixels)
    held = real * pixels * FLOAT_BYTES  # the real images, while the synthetic ones are matched with them
    yield held + (_double if gradients else _training)(foot, synthetic, pixels)
    whole = decoded_of_class(recipe) * facts.classes
    if recipe.network_data == "real" or recipe.warmup_epochs:
        yield _training(foot, recipe.batch_real, pixels)
    if recipe.network_data == "synthetic":
        yield _training(foot, min(recipe.batch_net, whole), pixels) + 3 * whole * pixels * FLOAT_BYTES
    if "representative" in (recipe.selection, recipe.init):
        clusters = max(recipe.batch_real, decoded_of_class(recipe))
        yield _clustering(foot, facts, recipe.embedding_chunk, pixels, clusters)


def decoded_of_class(recipe: Recipe) -> int:
    """Images that the stored ones of a class are decoded to."""
    if not isinstance(recipe, MatchingRecipe):
        return recipe.ipc
    if recipe.formation == "multi":
        return recipe.ipc * sum(factor**2 for factor in range(1, recipe.factor + 1))
    return recipe.ipc * recipe.factor**2


def _trajectory(recipe: TrajectoryRecipe, facts: DatasetFacts, foot: Footprint, pixels: int) -> Iterator[float]:
    images = recipe.ipc * facts.classes
    yield _training(foot, recipe.batch_expert, pixels)
    step = min(recipe.batch_syn or images, images)
    yield _double(foot, step, pixels, UNROLLED) + images * pixels * FLOAT_BYTES


def _unrolled(recipe: UnrolledRecipe, facts: DatasetFacts, foot: Footprint, pixels: int) -> Iterator[float]:
    yield _training(foot, recipe.batch_real, pixels)
    yield _double(foot, recipe.images_per_step * facts.classes, pixels, UNROLLED)


def _recovery(recipe: RecoveryRecipe, facts: DatasetFacts, foot: Footprint, pixels: int) -> Iterator[float]:
    images = recipe.ipc * facts.classes
    yield _training(foot, recipe.squeeze_batch, pixels)
    yield _training(foot, min(recipe.batch_syn, facts.classes), pixels)
    yield _forward(foot, min(TEST_BATCH, images), pixels) + INPUTS * images * pixels * FLOAT_BYTES


def _coresets(recipe: CoresetRecipe, facts: DatasetFacts, foot: Footprint, pixels: int) -> Iterator[float]:
    yield 3 * largest_class(facts) * pixels * FLOAT_BYTES  # a class as floats, to compare it with what is chosen
    if recipe.pretrain_epochs:
        yield _training(foot, recipe.batch_net, pixels)
    if recipe.method != "random":
        yield _clustering(foot, facts, recipe.embedding_chunk, pixels, recipe.ipc)


_PHASES: dict[type[Recipe], Callable[..., Iterator[float]]] = {
    MatchingRecipe: _matching,
    TrajectoryRecipe: _trajectory,
    UnrolledRecipe: _unrolled,
    RecoveryRecipe: _recovery,
    CoresetRecipe: _coresets,
}


def _judging(recipe: Recipe, facts: DatasetFacts) -> Iterator[float]:
    """A network trained on the decoded images, and the test of it."""
    judge, size, pixels = recipe.evaluation, recipe.image_size, facts.channels * recipe.image_size**2
    foot = footprint_of_judge(judge, facts.channels, facts.classes, size, convnet_depth(size))
    images = decoded_of_class(recipe) * facts.classes
    batch = judge.batch_size
    if isinstance(recipe, UnrolledRecipe) and judge.mode == "replay":
        batch = recipe.images_per_step * facts.classes
    held = INPUTS if judge.mode == "soft" else DECODED
    inputs = max(held * images, 2 * facts.train if facts.train <= KEPT_INPUTS else 0) * pixels * FLOAT_BYTES
    weights = WEIGHTS * foot.parameters * FLOAT_BYTES
    yield inputs + weights + _training(foot, batch, pixels)
    yield inputs + weights + _forward(foot, min(TEST_BATCH, facts.test), pixels)
