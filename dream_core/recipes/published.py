"""The settings that IDC and DREAM publish (`--reproduce` of both codes), as data and two rules. Imports no torch."""

from typing import Any

# dataset -> what differs from the defaults of `Recipe`; `lr_base` is scaled below
_BY_DATASET: dict[str, dict[str, Any]] = {
    "cifar10": {"metric": "mse", "lr_base": 5e-3, "n_data": 2000},
    "cifar100": {"metric": "mse", "lr_base": 5e-3, "n_data": 2000},
    "svhn": {"metric": "mse", "lr_base": 5e-3, "n_data": 500},
    "mnist": {"metric": "l1", "lr_base": 1e-4, "n_data": 500},
    "fashion_mnist": {"metric": "l1", "lr_base": 1e-4, "n_data": 500},
    "tinyimagenet": {"metric": "mse", "lr_base": 5e-3, "n_data": 1000},
}

# Not published: digits and folders take the nearest published settings. DREAM's digits are for demonstration.
_HOUSE: dict[str, dict[str, Any]] = {
    "digits": {"metric": "mse", "lr_base": 5e-3, "n_data": 500, "factor": 1},
    "folder": {"metric": "mse", "lr_base": 5e-3, "n_data": 1000},
}

# IDC scales by (size / base)². The base is 28 for MNIST alone: FashionMNIST, also 28 pixels, is divided by 32.
_BASE_SIZE = {"mnist": 28, "digits": 8}

_METHODS: dict[str, dict[str, Any]] = {
    "idc": {"init": "first", "selection": "random", "batch_real": 64},
    "dream": {"init": "representative", "selection": "representative", "batch_real": 128},
}


def is_published(dataset: str, ipc: int) -> bool:
    """Whether the default settings for this dataset and IPC are ones that the papers ran."""
    return dataset in _BY_DATASET and ipc in (1, 10, 50)


def settings(method: str, dataset: str, ipc: int, image_size: int, factor: int | None, flips: bool) -> dict[str, Any]:
    """Everything the papers fix for this choice, as keyword arguments of `Recipe`, the evaluation nested.

    `factor` is the user's own, or None for the published one: some settings hang on it.
    """
    of_dataset = dict(_BY_DATASET.get(dataset) or _HOUSE.get(dataset) or _HOUSE["folder"])
    lr_base = of_dataset.pop("lr_base")
    values = {"factor": 2} | _METHODS[method] | of_dataset
    if factor is not None:
        values["factor"] = factor
    evaluation: dict[str, Any] = {
        "augmentation": "color_crop_flip_scale_rotate" if flips else "color_crop_scale_rotate"
    }

    if dataset == "tinyimagenet":
        values["batch_real"] = 64
        lr_base = 1e-6 if ipc == 50 else lr_base
    if dataset == "mnist" and values["factor"] > 1:  # no CutMix and no cutout, in condensation and in evaluation
        values |= {"augmentation": "color_crop", "mix_p_net": 0.0}
        evaluation["mix_p"] = 0.0
    if dataset == "svhn" and values["factor"] == 1 and ipc == 1:
        evaluation |= {"mix_p": 0.0, "augmentation": "color_crop_cutout_scale_rotate"}

    values["lr_img"] = lr_base * ipc / 10 * (image_size / _BASE_SIZE.get(dataset, 32)) ** 2
    values["evaluation"] = evaluation
    return values
