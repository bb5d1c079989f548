"""What NVIDIA's driver says of the GPUs that this worker sees. Loads no torch, and takes no memory of theirs."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

import pynvml
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.queue import queue_of, queues_of
from jobs.settings import Settings
from jobs.spec import MOST_GPUS

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a worker computes on: its name, where there is a GPU, and the class that its jobs may ask for."""

    name: str | None
    gpu_class: str | None
    devices: int = 1
    """Among so many a job may be shared here."""

    @property
    def queue(self) -> str:
        """That of its class, if it has one."""
        return queue_of(self.gpu_class)

    @property
    def queues(self) -> tuple[str, ...]:
        """Where its jobs come from."""
        return queues_of(self.queue, self.devices)


def own_gpu(settings: Settings) -> Gpu:
    """By the settings, else by the driver. Where it shows GPUs of several kinds, only the settings can tell."""
    here = settings.launcher == "process" and settings.device != "cpu"
    gpus = _names()[: _visible()] if here else []
    kinds = sorted(set(gpus))
    if len(kinds) > 1 and settings.gpu_class is None:
        log.warning("gpu.class_unknown", gpus=kinds, advice="set DREAM_GPU_CLASS")
    name = kinds[0] if len(kinds) == 1 else None
    return Gpu(name, settings.gpu_class or (name and class_of(name)), min(_devices(settings, len(gpus)), MOST_GPUS))


def _devices(settings: Settings, gpus: int) -> int:
    """As many as a runner will find, whose own count is what holds in the end."""
    if settings.launcher == "ray":
        return MOST_GPUS  # a job waits there until Ray has set them aside
    if settings.device == "cpu" or (settings.device == "auto" and not gpus):
        return os.cpu_count() or 1
    return gpus if gpus and settings.device in ("auto", "cuda") else 1


def _visible() -> int | None:
    """To how many GPUs CUDA_VISIBLE_DEVICES holds this process; None if to none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return None
    return len(list(takewhile(lambda each: each not in ("", "-1"), map(str.strip, chosen.split(",")))))


def class_of(name: str) -> str:
    """A driver's name as a class: `h100-80gb-hbm3` of `NVIDIA H100 80GB HBM3`."""
    words = re.findall(r"[a-z0-9.]+", name.lower().removeprefix("nvidia "))
    return "-".join(words)[:40].strip(".-")


def _names() -> list[str]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [str(pynvml.nvmlDeviceGetName(gpu)) for gpu in handles]
    except pynvml.NVMLError as error:
        log.warning("gpu.name_unknown", error=str(error))
        return []
    finally:
        pynvml.nvmlShutdown()


class GpuFigures(Collector):
    """Memory and use of every GPU, by its number. Nothing where there is no driver."""

    def describe(self) -> Iterable[Metric]:
        """All families, empty: no driver is asked before somebody looks."""
        return _families()

    def collect(self) -> Iterable[Metric]:
        """All families. A driver that fails later on costs these figures alone."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return ()
        try:
            return _read()
        except pynvml.NVMLError as error:
            log.warning("metrics.gpu_away", error=str(error))
            return ()
        finally:
            pynvml.nvmlShutdown()


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("dream_gpu_memory_used_bytes", "Memory of the GPU that is taken", labels=["gpu"]),
        GaugeMetricFamily("dream_gpu_memory_total_bytes", "Memory of the GPU", labels=["gpu"]),
        GaugeMetricFamily("dream_gpu_utilization_ratio", "Share of time in which the GPU computes", labels=["gpu"]),
    )


def _read() -> Iterable[Metric]:
    used, total, busy = families = _families()
    for number in range(pynvml.nvmlDeviceGetCount()):
        gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
        memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        used.add_metric([str(number)], float(memory.used))
        total.add_metric([str(number)], float(memory.total))
        busy.add_metric([str(number)], float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu) / 100)
    return families
