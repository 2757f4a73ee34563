"""tools/evidence/readings.py: the eight symmetries are exact, the figures' lines and children are those of the run."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from operators.phase_retrieval import PhaseRetrieval
from tests.worlds.runs import Place
from tools.evidence import readings
from tools.evidence.reading_figures import genetic, planning, symmetry
from utils.paths import PROJECT

NAMES = ("symmetry", "genetic", "planning")


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


def measured(side=16):
    """(x, y, operator): an image (3, H, W) and its noisy measurement."""
    generator, operator = torch.Generator().manual_seed(0), PhaseRetrieval()
    x = 2 * torch.rand(3, side, side, generator=generator) - 1
    clean = operator(x[None])
    return x, operator.measure(x[None], torch.randn(clean.shape, generator=generator)), operator


def test_eight_different_images_fit_a_measurement_alike():
    x, y, operator = measured()
    versions, losses = readings.turned_versions(x), readings.losses_of_versions(x, y, operator)
    assert len({v.numpy().tobytes() for v in versions}) == 8 and torch.equal(versions[0], x)
    torch.testing.assert_close(losses, losses[:1].expand(8), rtol=1e-5, atol=0)


@pytest.mark.parametrize("wrong", [lambda x: x.flip(-1), lambda x: x.flip((-2, -1)).roll(1, -1)])
def test_no_other_turn_of_a_channel_does(monkeypatch, wrong):
    """Mirrored, or turned about a point one pixel off."""
    x, y, operator = measured()
    monkeypatch.setattr(readings, "rotated", wrong)
    losses = readings.losses_of_versions(x, y, operator)
    assert ((losses[1:] / losses[0] - 1).abs() > 0.1).all()


def test_the_rows_of_the_figure_are_each_other_turned():
    above, below = readings.turned_versions(measured()[0]).chunk(2)
    assert torch.equal(below, above.flip(-2, -1))


def test_a_mixed_child_has_channels_of_two_particles():
    donors = ([0, 0, 0], [0, 0, 0], [2, 1, 2], [0, 1, 1])
    event = {"particles": [{"index": i, "donors": own} for i, own in enumerate(donors)]}
    assert readings.mixed_children(event) == [2, 3]


def test_orientation_is_one_minus_one_and_between():
    x = measured()[0]
    twin = (x + x.flip(-2, -1)) / 2
    for image, expected in ((x, 1), (x.flip(-2, -1), -1), (twin, 0)):
        assert readings.upright(image, x) == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def sampled(tiny_prior, tiny_images, tmp_path, monkeypatch):
    """sampled(*overrides) -> image 1 of the tiny world sampled, whose channels are all bad but the best."""
    monkeypatch.setattr(readings, "COMMON", ["gpu=-1", *Place(tmp_path, tiny_prior, tiny_images, particles=4).all("run")])
    return lambda *overrides: readings.sample(1, "recombination.excess=0", *overrides)


@pytest.mark.program
def test_what_is_looked_at_is_what_the_exchange_did(sampled):
    found = sampled("recombination_step=700")
    ((event, before, after),) = found.exchanges
    assert any(p["accepted"] for p in event["particles"])
    for p, was, is_now in zip(event["particles"], before, after):
        assert torch.equal(was, is_now) == (not p["accepted"])


@pytest.mark.program
def test_a_childs_line_goes_on_from_its_parent(sampled):
    found = sampled("recombination_step=700", "pruning_step=500", "children=2", "optimization_step=400")
    lines, parents = readings.descent(found), found.result.particles.parent.tolist()
    assert set(lines) == set(range(8)) and [parents.count(p) for p in set(parents)] == [2, 2]
    for number, parent in zip(found.result.particles.index.tolist(), parents):
        times = [t for t, _, _ in lines[number]]
        assert lines[number][0] == lines[parent][-1] and times == sorted(times, reverse=True) and times[-1] == 0
    assert planning(found, lines)


@pytest.mark.program
def test_the_figures_are_drawn(sampled, tmp_path):
    found, alone = sampled("recombination_step=700"), sampled()
    scores = readings.scores_of_versions(found)
    assert scores.shape == (8,) and torch.isfinite(scores).all()
    losses = readings.losses_of_versions(found.truth, found.result.particles.y[:1], found.parts.operator)
    for figure in (symmetry(readings.TURNS, readings.turned_versions(found.truth), losses, scores), genetic(found, alone)):
        figure.savefig(tmp_path / "figure.png", dpi=40)
        low, high = Image.open(tmp_path / "figure.png").convert("L").getextrema()
        assert high - low > 200


def test_the_image_is_the_first_whose_mixed_child_fails_alone(monkeypatch):
    worlds = {  # image: (donors of particle 0, its label with and without the exchange)
        16: ([1, 1, 1], "0", "failed"),
        17: ([0, 1, 0], "0", "0"),
        18: ([0, 1, 0], "failed", "failed"),
        19: ([0, 1, 0], "180", "mixed"),
    }

    def sample(number, *overrides):
        donors, *labels = worlds[number]
        event = {"particles": [{"index": 0, "donors": donors}]}
        return SimpleNamespace(image=number, modes={"label": [labels[not overrides]]}, exchanges=[(event, None, None)])

    monkeypatch.setattr(readings, "sample", sample)
    assert [s.image for s in readings.first_crossing()] == [19, 19]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_shows_each_figure_and_it_is_small(name):
    page = (PROJECT / "docs/research/readings.md").read_text()
    assert f"](../pictures/reading_{name}.jpg)" in page and len(page.splitlines()) <= 60
    assert (PROJECT / f"docs/pictures/reading_{name}.jpg").stat().st_size < 150_000
