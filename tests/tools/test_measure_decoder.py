"""What a decoder leaves: the figures, their place beside the checkpoint, and when a run takes them."""

import json

import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from tools import measure_decoder
from utils.config.check import check
from utils.errors import InputError
from utils.records import decoder_floor
from utils.records.decoder_floor import FILE, Measured, energy_of, operator_of
from utils.weights import beside_checkpoint


class Halving:
    """An autoencoder whose latents are images of half the size, with a fault of its encoder alone."""

    def encode(self, x):
        return torch.nn.functional.avg_pool2d(x, 2) + 0.1

    def decode(self, z):
        return torch.nn.functional.interpolate(z, scale_factor=2)


def test_what_encoding_and_decoding_leave_of_the_measurement_is_measured():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    operator, halving = PhaseRetrieval(), Halving()
    left = measure_decoder.residuals(halving, operator, x)
    difference = (operator(halving.decode(halving.encode(x))) - operator(x)).square().sum((1, 2, 3))
    assert torch.allclose(left, difference) and (left > 1).all()
    shifted = halving.decode(halving.encode(x))  # an image that it can draw, but for the fault of the encoder
    assert (measure_decoder.residuals(halving, operator, shifted) < 0.7 * left).all()


@pytest.fixture
def settings_of(composed, tiny, tmp_path, tiny_prior):
    """settings_of(*overrides), of a copy of the tiny prior."""
    import shutil

    shutil.copytree(tiny_prior, tmp_path / "prior")
    return lambda *overrides: check(composed(*tiny, f"model.path={tmp_path / 'prior'}", *overrides))


def figures(settings, high):
    return Measured(operator=operator_of(settings), images="some", count=2, mean=high / 2, high=high)


def test_a_run_takes_the_figure_of_its_operator_and_its_weights(settings_of, tmp_path):
    colour, grey = settings_of(), settings_of("+task.demo_langevin.operator.channels=1")
    assert energy_of(colour) is None
    for settings, high in ((colour, 3.0), (grey, 2.0), (colour, 4.0)):
        measure_decoder.keep(settings, figures(settings, high))
    assert (energy_of(colour), energy_of(grey)) == (4.0, 2.0)
    assert energy_of(settings_of("data=measurement", "data.channels=1", "data.resolution=16", "data.root=x")) == 2.0
    assert energy_of(settings_of("task.demo_langevin.operator.sigma=0.01")) == 4.0, "the noise is another matter"
    assert energy_of(settings_of("task.demo_langevin.operator.oversample=4")) is None
    path = beside_checkpoint(colour.model.path, FILE)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prior": {"model.path": "other"}}))
    assert energy_of(colour) is None, "measured of other weights"
    measure_decoder.keep(grey, figures(grey, 5.0))
    assert energy_of(grey) == 5.0 and energy_of(colour) is None, "those of other weights are gone"


def test_other_figures_are_kept_beside_the_new_ones(settings_of, capsys):
    settings = settings_of()
    for high in (3.0, 4.0, 4.0):
        measure_decoder.keep(settings, figures(settings, high))
    path = beside_checkpoint(settings.model.path, FILE)
    (before,) = path.parent.glob(f"{path.stem}*.1*")
    assert [json.loads(file.read_text())["measured"][0]["high"] for file in (path, before)] == [4.0, 3.0]
    assert f"{before}: the figures that were there before" in capsys.readouterr().out


def test_a_damaged_file_is_named(settings_of):
    settings = settings_of()
    beside_checkpoint(settings.model.path, FILE).write_text("{}")
    with pytest.raises(InputError, match="decoder_floor.json: cannot be read .*; remove it, or make it again with tools/"):
        energy_of(settings)


def test_measurements_are_no_images(settings_of):
    with pytest.raises(InputError, match="data.kind=measurement: the images themselves are needed; choose data=folder"):
        measure_decoder.measured_of(settings_of("data.kind=measurement"))


@pytest.mark.parametrize("name", ["demo-faces", "demo-scenes", "natural-32"])
def test_the_shipped_priors_have_their_figures(composed, name):
    settings = check(composed(f"model={name}", f"data.resolution={32 if name == 'natural-32' else 64}"))
    kept = decoder_floor.read(beside_checkpoint(settings.model.path, FILE))
    assert all(0 < each.mean < each.high and each.count >= 32 for each in kept.measured)
    assert energy_of(settings) > 0
