"""Names and facts: which datasets and methods there are, and their limits. Imports no torch.

Sizes and constants are those of the IDC and DREAM code, whose protocol is the default here; where the
field disagrees about a constant (CIFAR-100 is normalised with CIFAR-10's numbers there), docs/decisions
records the choice and every artifact carries the numbers it was made with.
"""

import re
from dataclasses import dataclass

from dream_core.errors import InvalidRecipe

FOLDER_PREFIX = "folder:"
UPLOAD_PREFIX = "upload:"
UPLOAD_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""How a user may call an uploaded dataset: also the name of its folder."""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What is known of a dataset before its files are read.

    `mean` and `std` normalise images in [0, 1], per channel. `flips` says that a mirrored image keeps its
    class. `whole_accuracy` is the published top-1 test accuracy in percent of a ConvNet trained on the whole
    training set, or None where no figure was found.
    """

    name: str
    title: str
    classes: int
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    test: int
    smallest_class: int
    flips: bool
    licence: str
    whole_accuracy: float | None = None


_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

DATASETS: dict[str, DatasetFacts] = {
    facts.name: facts
    for facts in (
        DatasetFacts("digits", "UCI handwritten digits", 10, 1, 8, (0.3052,), (0.3760,), 1442, 355, 140,
                     flips=False, licence="CC BY 4.0"),
        DatasetFacts("mnist", "MNIST", 10, 1, 28, (0.1307,), (0.3081,), 60_000, 10_000, 5_421,
                     flips=False, licence="CC BY-SA 3.0"),
        DatasetFacts("fashion_mnist", "FashionMNIST", 10, 1, 28, (0.2861,), (0.3530,), 60_000, 10_000, 6_000,
                     flips=True, licence="MIT"),
        DatasetFacts("svhn", "Street View House Numbers", 10, 3, 32, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970),
                     73_257, 26_032, 4_659, flips=False, licence="non-commercial use"),
        DatasetFacts("cifar10", "CIFAR-10", 10, 3, 32, **_CIFAR, train=50_000, test=10_000, smallest_class=5_000,
                     flips=True, licence="not stated", whole_accuracy=84.8),
        DatasetFacts("cifar100", "CIFAR-100", 100, 3, 32, **_CIFAR, train=50_000, test=10_000, smallest_class=500,
                     flips=True, licence="not stated", whole_accuracy=56.2),
        DatasetFacts("tinyimagenet", "Tiny ImageNet", 200, 3, 64, **_IMAGENET, train=100_000, test=10_000,
                     smallest_class=500, flips=True, licence="not stated", whole_accuracy=37.6),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """A distillation method: its name in recipes, what it does in a sentence, where it is published, what it costs.

    `family` says which methods share a recipe and a loop. `cost` is for people: what the time is spent on.
    """

    name: str
    family: str
    title: str
    summary: str
    paper: str
    cost: str


_DREAM_COST = "IDC's steps with 128 real images, and every 10 steps an embedding and a k-means of every class."
METHODS: dict[str, MethodFacts] = {
    facts.name: facts
    for facts in (
        MethodFacts(
            "dc", "matching", "DC",
            "Matches gradients of random real batches along the training of networks on the synthetic images.",
            "Zhao et al., Dataset Condensation with Gradient Matching, ICLR 2021",
            "A step: 256 real images of every class forward and backward; above one image per class, many passes over "
            "the synthetic ones.",
        ),
        MethodFacts(
            "dsa", "matching", "DSA",
            "DC with one differentiable augmentation for the real and the synthetic images of a class.",
            "Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021",
            "That of DC.",
        ),
        MethodFacts(
            "dm", "matching", "DM",
            "Matches mean features of real batches in fresh random networks, which are never trained.",
            "Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023",
            "Cheap steps, many of them: 256 real images of every class forward.",
        ),
        MethodFacts(
            "idc", "matching", "IDC",
            "Matches gradients of random real batches; stores several images in one (multi-formation).",
            "Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022",
            "A step: 64 real images of every class forward and backward, and 500 to 2000 to train the network.",
        ),
        MethodFacts(
            "dream", "matching", "DREAM",
            "Matches and starts from representative real images, chosen by k-means in each class: plugs into dc, dsa, "
            "dm and idc (`base`).",
            "Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023",
            _DREAM_COST,
        ),
        MethodFacts(
            "dream+", "matching", "DREAM+",
            "DREAM that matches gradients and features, with networks that have seen the real images once.",
            "Liu et al., DREAM+: Efficient Dataset Distillation by Bidirectional Representative Matching, 2023",
            f"{_DREAM_COST} Every fresh network first passes over all real images.",
        ),
        MethodFacts(
            "dd", "unrolled", "DD",
            "Learns images and step sizes such that a fresh network that takes these very steps does well.",
            "Wang et al., Dataset Distillation, 2018",
            "A step: 30 unrolled gradient steps, backward through each, and 1024 real images.",
        ),
        MethodFacts(
            "mtt", "trajectory", "MTT",
            "Learns images on which a network walks the way that experts walked on real ones.",
            "Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR 2022",
            "100 networks trained on the real images first, once for all jobs that share them; then 10 to 80 unrolled "
            "steps an iteration.",
        ),
        MethodFacts(
            "sre2l", "recovery", "SRe2L",
            "Squeezes the data into a teacher, recovers images from its batch statistics, labels many views of them.",
            "Yin et al., Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective, "
            "NeurIPS 2023",
            "A teacher trained on the real images, once for all jobs that share it; then 1000 to 4000 steps for every "
            "image per class, whatever their number.",
        ),
        MethodFacts(
            "random", "coresets", "Random",
            "Random real images of every class: what every method must beat.",
            "The usual baseline", "None.",
        ),
        MethodFacts(
            "herding", "coresets", "Herding",
            "Real images whose mean feature follows that of their class.",
            "Welling, Herding Dynamical Weights to Learn, ICML 2009",
            "A network trained on the real images for features.",
        ),
        MethodFacts(
            "k-center", "coresets", "k-Center",
            "Real images such that every other is near to one of them.",
            "Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018",
            "A network trained on the real images for features.",
        ),
        MethodFacts(
            "kmeans", "coresets", "k-means",
            "Real images nearest to the centres of k-means inside each class: what DREAM starts from, unlearned.",
            "Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023",
            "One embedding and one k-means of every class.",
        ),
    )
}  # fmt: skip


def dataset_names() -> str:
    """The names a user may give, for error messages."""
    return ", ".join([*DATASETS, f"{FOLDER_PREFIX}PATH", f"{UPLOAD_PREFIX}NAME"])


def is_folder(dataset: str) -> bool:
    """Whether the name means an ImageFolder tree or zip of the user's own (`folder:PATH`)."""
    return dataset.startswith(FOLDER_PREFIX) and len(dataset) > len(FOLDER_PREFIX)


def is_upload(dataset: str) -> bool:
    """Whether the name means a dataset that a user has uploaded to a service (`upload:NAME`)."""
    return dataset.startswith(UPLOAD_PREFIX) and bool(UPLOAD_NAME.fullmatch(dataset.removeprefix(UPLOAD_PREFIX)))


def find_dataset(dataset: str) -> DatasetFacts | None:
    """The facts of a built-in dataset, or None for `folder:PATH` and `upload:NAME`.

    Raises InvalidRecipe for any other name.
    """
    if is_folder(dataset) or is_upload(dataset):
        return None
    if dataset not in DATASETS:
        raise InvalidRecipe([("dataset", f"there is no dataset {dataset!r}; known: {dataset_names()}")])
    return DATASETS[dataset]


TORCHVISION_PREFIX = "torchvision:"


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A network: its name in recipes, its normalisations (the usual one first), the smallest image side that fits."""

    name: str
    title: str
    norms: tuple[str, ...]
    smallest: int
    source: str


_DC = "Zhao et al., Dataset Condensation with Gradient Matching, ICLR 2021"
_IDC = "Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022"
_DD = "Wang et al., Dataset Distillation, 2018"
_RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_VGG = "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015"
_DENSENET = "Huang et al., Densely Connected Convolutional Networks, CVPR 2017"
_MOBILENET = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018"
_EFFICIENTNET = "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019"

NETWORKS: dict[str, NetworkFacts] = {
    facts.name: facts
    for facts in (
        NetworkFacts("convnet", "ConvNet", ("instance", "batch", "layer", "group", "none"), 2, _DC),
        NetworkFacts("mlp", "Multilayer perceptron", ("none",), 1, _DC),
        NetworkFacts("lenet", "LeNet", ("none",), 16, f"{_DC}; {_DD}"),
        NetworkFacts("alexnet", "AlexNet for small images", ("none", "instance", "batch"), 8, _DC),
        NetworkFacts("vgg11", "VGG-11 for small images", ("instance", "batch"), 8, _DC),
        NetworkFacts("resnet18", "ResNet-18 for small images", ("instance", "batch"), 8, _DC),
        NetworkFacts("resnet18_ap", "ResNet-18 with average pooling", ("batch", "instance"), 8, _DC),
        NetworkFacts("resnet10", "ResNet-10", ("batch", "instance"), 8, _IDC),
        NetworkFacts("resnet10_narrow", "ResNet-10, half as wide", ("batch", "instance"), 8, _IDC),
        NetworkFacts("resnet18_narrow", "ResNet-18, half as wide", ("batch", "instance"), 8, _IDC),
        NetworkFacts("resnetap10", "ResNet-10 with average pooling", ("instance", "batch"), 8, _IDC),
        NetworkFacts("densenet", "DenseNet of growth 12", ("batch",), 8, _IDC),
        NetworkFacts("alexcifarnet", "AlexNet of DD", ("none",), 4, _DD),
        *(
            NetworkFacts(f"{TORCHVISION_PREFIX}{model}", title, ("batch",), smallest, source)
            for model, title, smallest, source in (
                ("resnet18", "ResNet-18 of torchvision", 16, _RESNET),
                ("resnet34", "ResNet-34 of torchvision", 16, _RESNET),
                ("resnet50", "ResNet-50 of torchvision", 16, _RESNET),
                ("resnet101", "ResNet-101 of torchvision", 16, _RESNET),
                ("vgg11_bn", "VGG-11 of torchvision", 32, _VGG),
                ("vgg16_bn", "VGG-16 of torchvision", 32, _VGG),
                ("densenet121", "DenseNet-121 of torchvision", 64, _DENSENET),
                ("mobilenet_v2", "MobileNetV2 of torchvision", 64, _MOBILENET),
                ("efficientnet_b0", "EfficientNet-B0 of torchvision", 64, _EFFICIENTNET),
            )
        ),
    )
}  # fmt: skip
