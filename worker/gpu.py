"""What NVIDIA's driver says of the GPUs that this worker sees. Loads no torch, and takes no memory of theirs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pynvml
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.queue import QUEUE, queue_of
from jobs.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a worker computes on: its name, where there is a GPU, and the class that its jobs may ask for."""

    name: str | None
    gpu_class: str | None

    @property
    def queues(self) -> tuple[str, ...]:
        """Where its jobs come from; the last is that of its class, if it has one."""
        return (QUEUE,) if self.gpu_class is None else (QUEUE, queue_of(self.gpu_class))


def own_gpu(settings: Settings) -> Gpu:
    """By the settings, else by the driver. Where it shows GPUs of several kinds, only the settings can tell."""
    here = settings.launcher == "process" and settings.device != "cpu"
    names = sorted(set(_names())) if here else []
    if len(names) > 1 and settings.gpu_class is None:
        log.warning("gpu.class_unknown", gpus=names, advice="set DREAM_GPU_CLASS")
    name = names[0] if len(names) == 1 else None
    return Gpu(name, settings.gpu_class or (name and class_of(name)))


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
