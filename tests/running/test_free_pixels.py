"""A share of the measured values is kept out of the fit: which ones, that no loss sees them, and what the record says."""

import numpy as np
import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from tests.worlds.runs import ANALYTIC, Place, metrics_of, without_pictures
from utils.errors import InputError
from utils.noise import KeyedNoise
from utils.records.files import read_record, record_paths
from utils.running.free_pixels import of_pairs, split

NOISE = KeyedNoise(3)


def measured(images=(0, 1), shape=(3, 24, 24)):
    return torch.rand(len(images), *shape, generator=torch.Generator().manual_seed(0))


def test_fitted_and_free_share_the_measurement_and_nothing_else():
    y = measured()
    y[0, 0, 5] = torch.nan  # never measured
    fitted, free = split(y, [0, 1], 0.1, NOISE, paired=False)
    assert torch.equal(torch.isnan(fitted) & torch.isnan(free), torch.isnan(y))
    assert not (~torch.isnan(fitted) & ~torch.isnan(free)).any()
    torch.testing.assert_close(torch.nan_to_num(fitted) + torch.nan_to_num(free), torch.nan_to_num(y), rtol=0, atol=0)
    share = (~torch.isnan(free)).float().mean().item()
    assert abs(share - 0.1) < 4 * (0.09 / y.numel()) ** 0.5


def test_an_image_has_its_own_free_values_whatever_is_beside_it():
    both = split(measured(), [4, 7], 0.1, NOISE, paired=True)[1]
    alone = split(measured()[1:], [7], 0.1, NOISE, paired=True)[1]
    assert torch.equal(torch.isnan(both[1]), torch.isnan(alone[0]))
    assert not torch.equal(torch.isnan(both[0]), torch.isnan(both[1]))
    other = split(measured()[1:], [7], 0.1, KeyedNoise(4), paired=True)[1]
    assert not torch.equal(torch.isnan(other), torch.isnan(alone))


def test_what_is_free_at_two_percent_is_free_at_five():
    few, many = (~torch.isnan(split(measured(), [0, 1], f, NOISE, True)[1]) for f in (0.02, 0.05))
    assert 0 < few.sum() < many.sum() and not (few & ~many).any()


@pytest.mark.parametrize("side", [16, 20])
def test_the_twin_of_a_free_value_is_free_too(side):
    """Their values of a real image are the same: the one in the fit would tell the other."""
    operator = PhaseRetrieval(sigma=0.0)
    clean = operator(torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)))
    n = clean.shape[-1]
    twin = [(2 * (n // 2) - i) % n for i in range(n)]
    torch.testing.assert_close(clean, clean[..., twin, :][..., twin], rtol=1e-3, atol=1e-4)
    free = ~torch.isnan(split(clean, [0], 0.1, NOISE, operator.spectrum)[1])
    assert torch.equal(free, free[..., twin, :][..., twin])
    assert abs(free.float().mean().item() - 0.1) < 4 * (2 * 0.09 / free.numel()) ** 0.5
    alone = ~torch.isnan(split(clean, [0], 0.1, NOISE, paired=False)[1])
    assert not torch.equal(alone, alone[..., twin, :][..., twin])


def test_pairs_of_an_odd_side_meet_at_the_centre():
    found = of_pairs(torch.arange(15.0).view(3, 5))
    assert torch.equal(found, found.flip(0, 1)) and found[1, 2] == 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two particles on six images, with a tenth of the measurement free, and without."""
    runs = Place(tmp_path_factory.mktemp("free"), "unused", images=6, overrides=(ANALYTIC, "data.end_id=6"))
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        runs.run("off")
        runs.run("free", "free_fraction=0.1")
        runs.run("by_free", "free_fraction=0.1", "selection.rule=free_loss")
    return runs


def records(folder, name):
    return [read_record(path) for path in record_paths(folder.path(name))]


def test_a_record_has_the_free_loss_over_its_own_floor(folder):
    for (record, arrays), (off, whole) in zip(records(folder, "free"), records(folder, "off")):
        y = torch.from_numpy(arrays["y"])
        assert np.array_equal(arrays["y"], whole["y"])  # all that was measured
        free = split(y[None], [record["image_id"]], 0.1, KeyedNoise(42), True)[1]
        count = int((~torch.isnan(free)).sum())
        assert record["free"]["noise_floor"] == pytest.approx(count * 0.05**2)
        assert record["noise_floor"] + record["free"]["noise_floor"] == pytest.approx(off["noise_floor"])
        x = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).double() / 127.5 - 1
        seen, operator = PhaseRetrieval()(x), PhaseRetrieval()
        loss = operator.loss(x, free.expand(2, -1, -1, -1)).tolist()
        assert record["free"]["loss"] == pytest.approx(loss, rel=0.02)  # of pictures of 8 bits
        free = ~torch.isnan(free[0])
        for i in range(2):
            for there, value in ((free, record["free"]["r_factor"][i]), (~free, record["r_factor"][i])):
                expected = (seen[i] - y).abs()[there].sum() / y.abs()[there].sum()
                assert value == pytest.approx(expected.item(), rel=0.02)
        assert "free" not in off and len(off["r_factor"]) == 2


def test_the_fit_sees_nothing_of_what_is_free(folder, monkeypatch):
    """With other free values the particles are the same, bit for bit."""
    from utils.running import build

    measure = build.measure

    def spoiled(parts, x, image_id):
        y = measure(parts, x, image_id)
        free = ~torch.isnan(split(y, [image_id], 0.1, parts.noise, True)[1])
        return torch.where(free, 100.0, y)

    monkeypatch.setattr(build, "measure", spoiled)
    without_pictures(monkeypatch)
    folder.run("spoiled", "free_fraction=0.1")
    for (clean, a), (wrong, b) in zip(records(folder, "free"), records(folder, "spoiled")):
        assert np.array_equal(a["z"], b["z"]) and clean["loss"] == wrong["loss"]
        assert min(wrong["free"]["loss"]) > 10 * max(clean["free"]["loss"])


def test_the_pick_follows_its_rule(folder):
    picks = [[record["selection"]["picked"] for record, _ in records(folder, name)] for name in ("free", "by_free")]
    assert picks[0] != picks[1]
    for (by_loss, _), (by_free, _) in zip(records(folder, "free"), records(folder, "by_free")):
        assert by_loss["free"] == by_free["free"] and by_loss["loss"] == by_free["loss"]
        assert by_loss["selection"]["picked"] == np.argmin(by_loss["loss"])
        assert by_free["selection"]["picked"] == np.argmin(by_free["free"]["loss"])
        assert "kept out" in by_free["selection"]["rule"] and "kept out" not in by_loss["selection"]["rule"]


def test_metrics_and_summary_have_it(folder):
    metrics, off = metrics_of(folder.path("free")), metrics_of(folder.path("off"))
    (record, _), *_ = records(folder, "free")
    assert metrics["free"]["ratio"][0][1] == record["free"]["loss"][1] / record["free"]["noise_floor"]
    assert metrics["free"]["r_factor"][0] == record["free"]["r_factor"] and off["free"] is None
    text, without = ((folder.path(name) / "eval.md").read_text() for name in ("free", "off"))
    assert "| free loss / its floor |" in text and "| R-factor, free |" in text
    assert "| R-factor |" in without and "free" not in without.replace("Label-free", "").replace("label-free", "")


def test_a_rule_without_free_values_is_refused(folder):
    with pytest.raises(InputError, match="selection.rule=free_loss: nothing is kept out"):
        folder.run("none", "selection.rule=free_loss")
