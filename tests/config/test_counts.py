"""A gain is one fact: likelihood, photons, background and sigma follow from it, and what the user has set stays."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from utils.config.check import check
from utils.config.compose import compose
from utils.config.fingerprint import identity
from utils.data import select_images
from utils.errors import InputError
from utils.paths import PROJECT

COUNTS = np.random.default_rng(0).poisson(40, (3, 96, 96))
COUNTS[:, 48, 48] = 9000


@pytest.fixture
def counted(tmp_path):
    """counted(*overrides, frame=...) -> the settings of a run on one file."""

    def of(*overrides, frame=COUNTS):
        np.save(tmp_path / "y.npy", frame)
        keys = [f"data.root={tmp_path}", "data.quantity=counts", *overrides]
        overrides = ["gpu=-1", "data=measurement", *keys]
        return check(compose(overrides), overrides)

    return of


def said(settings):
    fidelity = settings.fidelity
    return fidelity.gaussian, fidelity.poisson, fidelity.photons, settings.group.operator.sigma


def test_the_gain_alone_says_likelihood_photons_and_sigma(counted):
    settings = counted("data.gain=400")
    assert said(settings) == (0, 1, 400, pytest.approx(1 / 40)) and settings.fidelity.background == 0.1
    kept = settings.composition.identity["fidelity"]
    assert kept["photons"] == 400 and "photons: 400" in settings.composition.documents["config.yaml"]
    again = check(OmegaConf.create(settings.composition.documents["config.yaml"]))  # of its own run folder
    assert again.composition.fingerprint == settings.composition.fingerprint


@pytest.mark.parametrize(
    "override, expected",
    [
        ("fidelity.photons=100", (0, 1, 100, 0.05)),
        ("fidelity.gaussian=1", (1, 0, None, 0.025)),  # its own value
        ("fidelity.amplitude=0.5", (1, 0, 400, 0.025)),
        ("task.demo_langevin.operator.sigma=0.05", (0, 1, 400, 0.05)),  # likewise
        ("task.demo_langevin.operator.sigma=0.1", (0, 1, 400, 0.1)),
    ],
)
def test_a_key_of_the_user_wins(override, expected, counted):
    assert said(counted("data.gain=400", override)) == pytest.approx(expected)


def test_more_photons_than_counts_are_a_contradiction(counted):
    with pytest.raises(InputError, match=r"fidelity.photons=500.0: data.gain=400 says 400 counts at magnitude 1") as caught:
        counted("data.gain=400", "fidelity.photons=500")
    assert "\n" not in str(caught.value)
    assert said(counted("data.gain=400", "fidelity.photons=401"))[2] == 401  # rounded
    with pytest.raises(InputError, match="data.background is left out"):
        counted("data.gain=400", "fidelity.photons=100", "data.background=2")


@pytest.mark.parametrize(
    "overrides, frame, photons",
    [
        (["data.norm=none"], COUNTS, 400 * 96 * 96),
        (["data.crop=80"], COUNTS, 400 * (96 / 80) ** 2),
        (["data.frame=sum", "data.channels=1"], np.repeat(COUNTS[:1], 7, axis=0), 7 * 400),
        (["data.bin=2"], np.repeat(COUNTS, 2, axis=1).repeat(2, axis=2), 400),
        ([], COUNTS[:, 18:78, 18:78], 400 * (60 / 96) ** 2),  # padded, below the side of 64
        ([], COUNTS[:, 13:83, 13:83], 400),  # a field of 70
    ],
)
def test_photons_are_those_of_the_frame_that_is_measured(overrides, frame, photons, counted):
    assert counted("data.gain=400", *overrides, frame=frame).fidelity.photons == pytest.approx(photons)


def test_a_background_goes_to_the_likelihood_and_stays_in_y(counted):
    settings = counted("data.gain=400", "data.background=3", "data.bin=2", frame=np.repeat(COUNTS, 2, 1).repeat(2, 2))
    assert settings.fidelity.background == 12 and settings.kept_background == 12
    assert counted("data.gain=400", "data.background=auto").fidelity.background == pytest.approx(40, rel=0.02)
    assert counted("data.gain=400", "data.background=3", "fidelity.background=1").fidelity.background == 1
    gaussian = counted("data.gain=400", "data.background=3", "fidelity.gaussian=1")
    assert gaussian.kept_background == 0 and gaussian.fidelity.background == 0.1


def test_a_free_scale_needs_no_gain(counted):
    settings = counted("data.scale=free")
    gain = settings.data.gain
    y = np.sqrt(COUNTS / gain)
    assert np.mean((y**2).sum((1, 2))) / 64**2 == pytest.approx(0.25, rel=1e-3)
    assert said(settings) == (0, 1, gain, pytest.approx(0.5 / gain**0.5)) and settings.data_term.free_scale
    with pytest.raises(InputError, match="data.gain is missing; give the counts per unit of intensity, or data.scale=free"):
        counted()


def test_a_first_file_that_cannot_be_read_leaves_the_gain_to_the_next(counted, tmp_path):
    """Without it a run of the others took roots of counts for magnitudes with noise of one size."""
    (tmp_path / "a.npy").write_bytes(b"")
    for keys in (["data.scale=free"], ["data.gain=400"]):
        settings = counted(*keys, "data.start_id=1")
        assert said(settings) == (0, 1, settings.data.gain, pytest.approx(0.5 / settings.data.gain**0.5))


@pytest.mark.parametrize(
    "frame, reason",
    [(np.zeros((3, 96, 96), int), None), (np.where(COUNTS > 50, np.nan, COUNTS), "data.mask=nan takes NaN as not measured")],
)
def test_frames_of_which_no_gain_can_be_chosen_are_refused_by_their_reading(frame, reason, counted):
    settings = counted("data.scale=free", frame=frame)  # no ZeroDivisionError
    if reason:
        with pytest.raises(InputError, match=reason):
            select_images(settings)


@pytest.mark.parametrize("stop", [1, 5, 15])
@pytest.mark.parametrize("name", ["demo-faces", "demo-scenes"])
def test_behind_a_beam_stop_the_gain_that_is_chosen_is_right_to_a_factor_of_three(name, stop, counted):
    picture = np.asarray(Image.open(PROJECT / "dataset" / name / "00000.png").convert("RGB"), float).transpose(2, 0, 1) / 255
    padded = np.pad(picture, ((0, 0), (16, 16), (16, 16)))
    counts = 1000 * np.abs(np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), axes=(-2, -1))) ** 2
    hidden = slice(48 - stop // 2, 49 + stop // 2)
    counts[:, hidden, hidden] = np.nan
    gain = counted("data.scale=free", "data.mask=nan", frame=counts).data.gain
    assert 1000 / 3 < gain < 3000


@pytest.mark.parametrize("overrides", [["data.quantity=intensity"], ["data.quantity=magnitude"]])
def test_other_quantities_say_nothing_of_the_likelihood(overrides, counted):
    settings = counted(*overrides)
    assert said(settings) == (1, 0, None, 0.05) and "fidelity" not in settings.composition.identity


def test_what_is_wrong_with_the_files_is_left_to_their_reading(counted, tmp_path):
    settings = check(compose(["gpu=-1", "data=measurement", "data.root=/absent", "data.quantity=counts", "data.gain=400"]))
    assert said(settings) == (1, 0, None, 0.05)


@pytest.mark.parametrize(
    "override, message",
    [
        ("data.frame=sum", "data.frame=sum: counts and intensities add up, magnitudes do not"),
        ("data.background=3", "data.background=3.0: counts and intensities add up"),
        ("data.frame=-1", "data.frame"),
        ("data.frame=first", "data.frame"),
        ("data.crop=[96]", "data.crop=[96]"),
        ("data.crop=0", "data.crop=0"),
        ("data.bin=0", "data.bin=0"),
        ("data.background=/no/dark.npy", "counts and intensities add up"),
        ("data.transpose=1", "data.transpose=1"),
    ],
)
def test_keys_of_a_frame_that_cannot_be_are_one_line(override, message, tmp_path):
    with pytest.raises(InputError) as caught:
        check(compose(["gpu=-1", "data=measurement", "data.root=somewhere", override]))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["frame", "crop", "bin", "background", "transpose"])
def test_the_keys_at_their_defaults_are_no_part_of_the_identity(key):
    nodes = OmegaConf.to_container(compose(["data=measurement", "data.root=somewhere"]), resolve=True)
    assert key not in identity(nodes)["data"]
    value = {"frame": 1, "crop": 64, "bin": 2, "background": 3.0, "transpose": True}[key]
    nodes["data"][key] = value
    assert identity(nodes)["data"][key] == value
