"""Bounded passes, out of memory, and gradient checkpointing of the decoder."""

import logging

import pytest
import torch

from tests.worlds import runs
from utils import device as devices
from utils.errors import InputError
from utils.sampling.passes import Passes


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("memory"), tiny_prior, images=2)


def out_of_memory_above(limit, sizes):
    """Work that fails as CUDA does with more than `limit` particles; notes the size of every attempt."""

    def work(z, sigma):
        sizes.append(len(z))
        if len(z) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return z + sigma, z.sum(1)

    return work


@pytest.mark.parametrize(
    "limit, expected", [(None, [7]), (1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 2, 2]), (6, [4, 3]), (7, [7]), (100, [7])]
)
def test_passes_are_balanced_bounded_and_in_order(limit, expected):
    sizes, z = [], torch.arange(14.0).reshape(7, 2)
    shifted, total = Passes(limit)(out_of_memory_above(100, sizes), z, torch.tensor(0.5))
    assert sizes == expected
    assert torch.equal(shifted, z + 0.5) and torch.equal(total, z.sum(1))


def test_one_sigma_per_particle_is_cut_with_the_particles():
    z, sigma = torch.randn(5, 2), torch.arange(5.0)
    assert torch.equal(Passes(2)(lambda z, s: z * s[:, None], z, sigma), z * sigma[:, None])


def test_out_of_memory_halves_the_pass_and_is_reported_once(caplog):
    sizes, passes, z = [], Passes(), torch.randn(8, 2)
    with caplog.at_level(logging.WARNING, "latentdaps"):
        first = passes(out_of_memory_above(3, sizes), z, torch.tensor(0.5))
        second = passes(out_of_memory_above(3, sizes), z, torch.tensor(0.5))
    assert sizes == [8, 4, 2, 2, 2, 2] + [2, 2, 2, 2], "the size that fits is kept"
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert [r.getMessage() for r in caplog.records] == [
        "out of memory: passes of 2 particles from here on (max_particles_per_pass=2 avoids the attempt)"
    ]


def test_one_particle_that_does_not_fit_is_wrong_input():
    with pytest.raises(InputError, match="max_particles_per_pass=1.*gradient_checkpointing=true"):
        Passes()(out_of_memory_above(0, []), torch.randn(4, 2), torch.tensor(0.5))


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_mean_out_of_memory(error, expected):
    assert devices.is_out_of_memory(error) is expected


def test_another_error_is_no_reason_to_retry():
    def work(z):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Passes()(work, torch.randn(4, 2))


@pytest.mark.program
@pytest.mark.parametrize("where", ["decode", "denoise", "backward"])
def test_a_run_survives_out_of_memory(place, monkeypatch, caplog, where):
    """The decoder, the denoiser or the backward pass take two particles, and four were asked for."""
    from utils.priors.latent_diffusion import LatentDiffusionPrior

    overrides = ("data.end_id=2", "batch_images=2")
    expected = runs.scores(runs.metrics_of(place.run("fits", *overrides)), memory=False)
    if where == "backward":
        grad = torch.autograd.grad

        def limited(loss, z, *rest):
            if len(z) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return grad(loss, z, *rest)

        monkeypatch.setattr(torch.autograd, "grad", limited)
    else:
        method = getattr(LatentDiffusionPrior, where)

        def limited(self, z, *arguments):
            if len(z) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return method(self, z, *arguments)

        monkeypatch.setattr(LatentDiffusionPrior, where, limited)
    with caplog.at_level(logging.WARNING, "latentdaps"):
        folder = place.run(f"short_{where}", *overrides)
    found = runs.scores(runs.metrics_of(folder), memory=False)
    for counted in (found, expected):
        counted.pop("phases")  # attempts that failed are counted too: they were run
    runs.assert_close(found, expected, 1e-4)
    assert [r.getMessage() for r in caplog.records].count(
        "out of memory: passes of 2 particles from here on (max_particles_per_pass=2 avoids the attempt)"
    ) == 1


@pytest.mark.program
def test_a_run_with_no_memory_at_all_is_one_line(place, monkeypatch):
    from utils.priors.latent_diffusion import LatentDiffusionPrior

    def none_left(self, z):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LatentDiffusionPrior, "decode", none_left)
    with pytest.raises(InputError, match="out of memory with one particle"):
        place.run("hopeless", "data.end_id=1")


@pytest.mark.program
def test_no_memory_outside_the_passes_is_one_line(place, monkeypatch):
    from utils.noise import KeyedNoise

    def none_left(*arguments, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(KeyedNoise, "draw", none_left)
    with pytest.raises(InputError, match="Tried to allocate 20.00 GiB.*batch_images="):
        place.run("hopeless_noise", "data.end_id=1")


@pytest.mark.program
def test_checkpointing_gives_the_same_bits_and_needs_less_memory(place):
    plain = place.run("plain", "data.end_id=2")
    lean = place.run("lean", "data.end_id=2", "gradient_checkpointing=true")
    assert runs.scores(runs.metrics_of(plain), memory=False) == runs.scores(runs.metrics_of(lean), memory=False)
    peak = {f: runs.metrics_of(f)["vram"]["sampling_peak_mb"] for f in (plain, lean)}
    assert peak[lean] < peak[plain]


@pytest.mark.program
def test_smaller_passes_need_less_memory(place):
    peak = [
        runs.metrics_of(place.run(f"limit_{n}", "data.end_id=2", "batch_images=2", f"max_particles_per_pass={n}"))["vram"][
            "sampling_peak_mb"
        ]
        for n in (4, 2, 1)
    ]
    assert peak[0] > peak[1] > peak[2]
