import pytest
import torch


@pytest.fixture
def float64():
    """Everything in float64: networks are made in the default type, images converted to it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
