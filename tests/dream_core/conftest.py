import pytest
import torch

from dream_core import networks


@pytest.fixture
def float64():
    """Everything in float64: networks are made in the default type, images converted to it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def judged_networks(monkeypatch):
    """The networks that evaluations make."""
    made, make = [], networks.evaluation_network

    def remember(*arguments):
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(networks, "evaluation_network", remember)
    return made
