"""batch_images=auto: from the free memory on CUDA, from the size of a pass on the CPU, 1 on XLA."""

import logging
from types import SimpleNamespace

import pytest
import torch

from utils import device as devices
from utils.running import batching


@pytest.mark.parametrize(
    "free, one, most, expected",
    [(1000, 100, 50, 8), (1000, 100, 3, 3), (1000, 1000, 50, 1), (10, 1000, 50, 1), (0, 1000, 50, 1)],
)
def test_the_margin_and_the_bounds(free, one, most, expected):
    assert batching.images_that_fit(free, one, most) == expected


@pytest.mark.program
def test_on_the_cpu_it_says_how_many(run, caplog):
    with caplog.at_level(logging.INFO, "latentdaps"):
        _, metrics = run("batch_images=auto", "data.end_id=3")
    assert [r.getMessage() for r in caplog.records if "batch_images=auto" in r.getMessage()] == [
        "batch_images=auto: 3 images a batch"
    ]
    assert metrics["metadata"]["device"]["batch_images"] == 3


@pytest.mark.parametrize(
    "device, particles, resolution, expected",
    [
        ("cpu", 4, 64, 4),
        ("cpu", 1, 64, 16),
        ("cpu", 4, 32, 16),
        ("cpu", 5, 64, 3),
        ("cpu", 1, 256, 1),
        ("cpu", 4, 8, 50),
        ("xla", 4, 64, 1),
    ],
)
def test_without_counted_memory_the_size_of_a_pass_decides(device, particles, resolution, expected, monkeypatch):
    monkeypatch.setattr(devices, "free_memory_bytes", lambda device: None)
    data = SimpleNamespace(resolution=resolution)
    settings = SimpleNamespace(batch_images="auto", data=data)
    parts = SimpleNamespace(device=torch.device(device), census=SimpleNamespace(most=particles))
    assert batching.images_per_batch(parts, settings, [None] * 50) == expected


@pytest.mark.program
def test_where_memory_is_counted_one_inner_iteration_decides(run, monkeypatch, caplog):
    """Memory counters as CUDA has them, on the CPU: 1000 MB free, 300 MB for an image's four particles."""
    from sampler import LatentDAPS

    probed, gradient = [], LatentDAPS.data_gradient

    def memory_of(device, work):
        work()
        probed.append(calls[-1])
        return 300 * 2**20

    calls = []
    monkeypatch.setattr(
        LatentDAPS,
        "data_gradient",
        lambda self, particles, *rest: (calls.append(len(particles)), gradient(self, particles, *rest))[1],
    )
    monkeypatch.setattr(devices, "free_memory_bytes", lambda device: 1000 * 2**20)
    monkeypatch.setattr(devices, "memory_of", memory_of)
    with caplog.at_level(logging.INFO, "latentdaps"):
        _, metrics = run("batch_images=auto", "data.end_id=3")
    assert probed == [4] and set(calls[1:]) == {8, 4}  # two images, then the third
    assert "batch_images=auto: 2 images a batch (1000 MB free, 300 MB for one image)" in caplog.text
    assert metrics["metadata"]["device"]["batch_images"] == 2
    run("data.end_id=4")  # a number may continue what auto began


def test_a_number_is_taken_as_it_is():
    assert batching.images_per_batch(None, SimpleNamespace(batch_images=3), []) == 3


def test_the_cpu_counts_no_free_memory():
    assert devices.free_memory_bytes(torch.device("cpu")) is None
