"""What NVIDIA's driver says of the GPUs that this worker sees. Loads no torch, and takes no memory of theirs."""

from collections.abc import Iterable

import pynvml
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger()


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
