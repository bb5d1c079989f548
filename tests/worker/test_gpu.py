"""Figures of GPUs, where there are any; where there is none, none and no complaint."""

import os

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from jobs.spec import MOST_GPUS, Resources
from worker.gpu import Gpu, GpuFigures, class_of, own_gpu


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb-hbm3"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("NVIDIA GeForce RTX 4090", "geforce-rtx-4090"),
        ("Tesla T4", "tesla-t4"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000-blackwell-max-q-workstation"),
    ],
)
def test_a_name_becomes_a_class_that_jobs_may_ask_for(name, expected):
    assert class_of(name) == Resources(gpu_class=expected).gpu_class == expected


def test_a_worker_is_of_the_class_that_it_is_said_to_be(settings):
    gpu = own_gpu(settings.model_copy(update={"gpu_class": "a100", "device": "cpu"}))
    assert gpu == Gpu(None, "a100", min(os.cpu_count() or 1, MOST_GPUS))
    assert gpu.queues[:2] == ("default", "gpu.a100")


def test_a_worker_without_a_gpu_has_no_class(settings):
    assert own_gpu(settings.model_copy(update={"device": "cpu"})).queues[0] == "default"
    assert own_gpu(settings.model_copy(update={"device": "cpu"})).queue == "default"


@pytest.mark.parametrize(
    ("changes", "visible", "devices"),
    [
        ({"device": "auto"}, None, 4),
        ({"device": "cuda"}, "0,2", 2),
        ({"device": "cuda"}, "GPU-8932f937", 1),
        ({"device": "cuda"}, "1,-1,2", 1),
        ({"device": "cuda:1"}, None, 1),
        ({"device": "auto"}, "", min(os.cpu_count() or 1, MOST_GPUS)),
        ({"device": "cpu"}, None, min(os.cpu_count() or 1, MOST_GPUS)),
        ({"device": "auto", "launcher": "ray"}, None, MOST_GPUS),
    ],
)
def test_a_worker_takes_jobs_for_as_many_devices_as_its_runners_see(monkeypatch, settings, changes, visible, devices):
    monkeypatch.setattr("worker.gpu._names", lambda: ["NVIDIA A100"] * 4)  # what the driver says on a machine with four
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert own_gpu(settings.model_copy(update=changes)).devices == devices


@pytest.mark.skipif(gpus() != 1, reason="needs one GPU")
def test_a_worker_with_one_gpu_is_of_the_class_that_its_name_is(settings):
    gpu = own_gpu(settings)
    assert gpu.name
    assert gpu.queues[:2] == ("default", f"gpu.{class_of(gpu.name)}")
