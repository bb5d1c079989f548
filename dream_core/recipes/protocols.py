"""How the papers judge a set, as values of `EvaluationRecipe`. Imports no torch."""

from typing import Any

TEST_BATCH = 256
"""Images that are tested at a time."""
KEPT_INPUTS = 2**14
"""A training set of at most so many images is kept as network inputs while a network is judged."""

DSA = "color_crop_cutout_flip_scale_rotate"


def dsa_strategy(flips: bool) -> str:
    """The operators of DSA; handwritten and house-number digits are not mirrored."""
    return DSA if flips else DSA.replace("_flip", "")


def idc_protocol(dataset: str, ipc: int, factor: int, flips: bool) -> dict[str, Any]:
    """IDC and DREAM (`test.py` of both codes)."""
    protocol: dict[str, Any] = {"augmentation": dsa_strategy(flips).replace("_cutout", "")}
    if dataset == "mnist" and factor > 1:
        protocol["mix_p"] = 0.0
    if dataset == "svhn" and factor == 1 and ipc == 1:
        protocol |= {"mix_p": 0.0, "augmentation": "color_crop_cutout_scale_rotate"}
    return protocol


def dc_protocol(augmentation: str) -> dict[str, Any]:
    """DC, DSA, DM and MTT (`evaluate_synset` of the DC code): a loop from 0 to 300, to 1000 with augmentation."""
    return {
        "epochs": 301 if augmentation == "none" else 1001,
        "batch_size": 256,
        "schedule": "tenth",
        "augmentation": augmentation,
        "composition": "one",
        "mix_p": 0.0,
        "tests": 1,
    }
