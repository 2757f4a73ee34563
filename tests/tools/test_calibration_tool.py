"""tools/calibration.py: truths of the prior's law, numbers whose answers are known, and what a user finds on disk."""

import json
import sys

import numpy as np
import pytest
import torch

from tests.worlds.mixture import GaussianMixturePrior
from tests.worlds.runs import ANALYTIC, TINY
from tools import calibration
from utils.command_line import run
from utils.sampling.schedule import ode_sigmas

P = 9


def flow(method, steps):
    """Ends of the probability flow from sigma 10, and where it leads from there: (z - m) s / (s^2 + 100)^(1/2) + m."""
    mean, std = [0.3, -1.0], 0.4
    prior = GaussianMixturePrior([mean], [std], [1.0], np.eye(2))
    z = 10 * torch.randn(64, *prior.latent_shape, generator=torch.Generator().manual_seed(0), dtype=prior.dtype)
    sigmas = [torch.tensor(s, dtype=prior.dtype) for s in ode_sigmas(10.0, steps, calibration.LAST_SIGMA)]
    m = torch.tensor(mean, dtype=prior.dtype).view(prior.latent_shape)
    return method(prior.denoise, z, sigmas), (z - m) * std / (std**2 + 100) ** 0.5 + m


def euler(denoise, z, sigmas):
    for sigma, below in zip(sigmas[:-1], sigmas[1:]):
        z = z + (below - sigma) * (z - denoise(z, sigma)) / sigma
    return denoise(z, sigmas[-1])


def test_truths_end_where_the_flow_leads():
    found, exact = flow(calibration.heun, calibration.STEPS)
    error = (found - exact).abs().max()
    assert error < 0.02 * 0.4  # of the width of the law
    found, exact = flow(euler, 2 * calibration.STEPS)  # as many calls of the denoiser
    assert (found - exact).abs().max() > 5 * error


def cases(width, truths=60, pixels=50, agree=P):
    """Of particles that lie around a centre with `width` times the truth's own spread; the last of them disagree."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(truths):
        centre = rng.normal(size=pixels)
        x, truth = centre + width * rng.normal(size=(P, pixels)), centre + rng.normal(size=pixels)
        label = ["180" if turned else "0" for turned in rng.integers(0, 2, P)]
        found.append({"all": calibration.numbers(x, truth), "agreeing": calibration.numbers(x[:agree], truth), "label": label})
    return found


def test_draws_of_the_truths_law_are_found_calibrated():
    found = calibration.summary(cases(1.0, agree=5), P)
    assert found["calibrated"]
    assert (found["agreeing"]["nominal"], found["all"]["nominal"]) == (pytest.approx(4 / 6), pytest.approx(0.8))
    for name in ("all", "agreeing"):
        ratio, covered = found[name]["ratio"], found[name]["covered"]
        assert ratio["low"] < 1 < ratio["high"] and covered["low"] < found[name]["nominal"] < covered["high"]
    assert found["rank_histogram"] == pytest.approx([0.1] * 10, abs=0.02) and sum(found["rank_histogram"]) == pytest.approx(1)
    assert found["all"]["error"] == pytest.approx((1 + 1 / P) ** 0.5, rel=0.05) and found["orientations"]["p"] > 0.01


@pytest.mark.parametrize("width, side", [(0.5, -1), (2.0, 1)])
def test_particles_that_are_too_near_or_too_far_are_not(width, side):
    found = calibration.summary(cases(width), P)
    assert not found["calibrated"] and side * (found["agreeing"]["ratio"]["value"] - 1) > 0.2
    assert side * (found["agreeing"]["covered"]["value"] - 0.8) > 0.1


def test_ranks_are_counted_over_pixels():
    found = calibration.numbers(np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), np.array([-1.0, 1.0, 9.0]))
    assert found["ranks"].tolist() == [1, 1, 1] and found["n"] == 2
    assert found["variance"] == pytest.approx(1.5 * (0.5 + 2 + 4.5) / 3)
    assert found["error"] == pytest.approx((1.5**2 + 0 + 7.5**2) / 3)
    assert calibration.numbers(np.zeros((1, 3)), np.zeros(3)) is None


def test_without_any_agreement_all_particles_are_left():
    alone = [c | {"agreeing": None} for c in cases(1.0, truths=3)]
    found = calibration.summary(alone, P)
    assert found["agreeing"] is None and not found["calibrated"] and "| all | 3 |" in calibration.table(found)


@pytest.fixture
def tool(monkeypatch, capsys):
    """tool(*arguments) -> (status, stdout, stderr)."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["calibration.py", *arguments])
        status = 0
        try:
            run(calibration.main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return start


@pytest.mark.heavy
def test_a_small_case_leaves_numbers_and_a_figure(tool, tmp_path):
    overrides = (*TINY, ANALYTIC, "model.path=unused", f"save_dir={tmp_path}", "num_samples=3")
    status, out, _ = tool(*overrides[:3], "--truths", "2", *overrides[3:], "name=small")
    assert status == 0 and "| all | 2 |" in out
    found = json.loads((tmp_path / "small_calibration.json").read_text())
    assert (found["truths"], found["particles"]) == (2, 3) and len(found["rank_histogram"]) == 4
    assert (tmp_path / "small_calibration.png").stat().st_size > 1000
    again = tool(*overrides, "name=again", "--truths", "2")
    assert again[0] == 0
    same = json.loads((tmp_path / "again_calibration.json").read_text())
    assert {k: v for k, v in same.items() if k != "overrides"} == {k: v for k, v in found.items() if k != "overrides"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("num_samples=1",), "num_samples=1: one particle has no spread"),
        (("--truths", "0"), "truths=0: must be at least 1"),
        (("temprature=1",), "temprature"),
        (("--truth",), "see calibration.py --help"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tool, tmp_path, arguments, message):
    status, _, error = tool(*arguments, f"save_dir={tmp_path}")
    assert status == 2 and message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
