"""Figures of GPUs, where there are any; where there is none, none and no complaint."""

import pynvml
from prometheus_client import CollectorRegistry, generate_latest

from worker.gpu import GpuFigures


def gpus() -> int:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return pynvml.nvmlDeviceGetCount()
    finally:
        pynvml.nvmlShutdown()


def test_every_gpu_is_shown():
    used, total, busy = list(GpuFigures().collect()) or GpuFigures().describe()
    assert len(used.samples) == len(total.samples) == len(busy.samples) == gpus()
    assert all(0 <= some.value <= whole.value for some, whole in zip(used.samples, total.samples, strict=True))
    assert all(0 <= sample.value <= 1 for sample in busy.samples)


def test_they_can_be_scraped():
    registry = CollectorRegistry()
    registry.register(GpuFigures())
    assert (b"dream_gpu_memory_used_bytes" in generate_latest(registry)) == (gpus() > 0)
