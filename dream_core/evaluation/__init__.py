"""How good a set of images is: train fresh networks on it, test them on the real test set.

Source: the protocol of IDC and DREAM (`train.py`, `test.py` of both codes).
"""

from dream_core.evaluation.baselines import ceiling_epochs, published_ceiling, random_real
from dream_core.evaluation.protocol import Epoch, NetworkScore, Score, protocol_hash, summarize, train_and_test

__all__ = [
    "Epoch",
    "NetworkScore",
    "Score",
    "ceiling_epochs",
    "protocol_hash",
    "published_ceiling",
    "random_real",
    "summarize",
    "train_and_test",
]
