from functools import partial

import pytest
import torch

from dream_core import selection
from dream_core.evaluation import protocol
from dream_core.images import to_unit
from dream_core.methods import matching


@pytest.fixture
def float64(monkeypatch):
    """Everything in float64: networks are made in the default type, images converted to it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    for module in (matching, protocol, selection):
        monkeypatch.setattr(module, "to_unit", partial(to_unit, dtype=torch.float64))
    yield
    torch.set_default_dtype(before)
