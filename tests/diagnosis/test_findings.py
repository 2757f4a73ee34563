"""What is found in frames of the shipped sets: nothing in right ones, and in each faulty one the override that mends it."""

import numpy as np
import pytest
from PIL import Image

from utils.diagnosis.findings import Frame, findings_of
from utils.diagnosis.frames import by_radius, opposite
from utils.measurements import Convention, read
from utils.paths import PROJECT

SIDE, FRAME = 64, 96
SETS = ("demo-faces", "demo-scenes")
GREY = np.array([0.299, 0.587, 0.114])


def image(name, number):
    """(3, SIDE, SIDE) in [0, 1]."""
    path = sorted((PROJECT / "dataset" / name).glob("*.png"))[number]
    return np.asarray(Image.open(path).convert("RGB"), float).transpose(2, 0, 1) / 255


def grey(picture):
    return np.einsum("c,chw->hw", GREY, picture)[None]


def magnitude(picture, center=(48, 48)):
    """(C, FRAME, FRAME) whose zero frequency lies at `center`."""
    pad = (FRAME - picture.shape[-1]) // 2
    padded = np.pad(picture, ((0, 0), (pad, pad), (pad, pad)))
    rows, columns = (np.exp(2j * np.pi * (place - FRAME // 2) * np.arange(FRAME) / FRAME) for place in center)
    return np.abs(np.fft.fftshift(np.fft.fft2(padded * rows[:, None] * columns, norm="ortho"), axes=(-2, -1)))


@pytest.fixture
def found(tmp_path):
    """found(values, sigma, **convention) -> the findings."""

    def find(values, sigma=0.05, **keys):
        np.save(tmp_path / "y.npy", values)
        convention = Convention(**keys)
        return findings_of(Frame.of(read(tmp_path / "y.npy", convention), convention, SIDE, float(sigma), "operator.sigma"))

    return find


def noisy(m, sigma, rng):
    return np.abs(m + sigma * rng.standard_normal(m.shape))


def stopped(values):
    values = values.copy()
    values[..., 45:52, 45:52] = -1
    return values


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("name", SETS)
def test_right_measurements_raise_no_alarm(name, number, found):
    rng = np.random.default_rng(number)
    colour = image(name, number)
    cases = {}
    for m, keys in ((magnitude(colour), {}), (magnitude(grey(colour)), {"channels": 1})):
        for sigma in (0.05, 0.0125):
            y = noisy(m, sigma, rng)
            cases[f"magnitudes {sigma} {keys}"] = found(y, sigma, **keys)
            cases[f"magnitudes {sigma} stop {keys}"] = found(stopped(y), sigma, mask=[-1], **keys)
        for gain in (100.0, 1e4, 1e6):
            y, sigma, counts = rng.poisson(gain * m**2), 0.5 / gain**0.5, {"quantity": "counts", "gain": gain, **keys}
            cases[f"counts {gain} {keys}"] = found(y, sigma, **counts)
            cases[f"counts {gain} stop {keys}"] = found(stopped(y), sigma, mask=[-1], **counts)
    alarms = {case: each for case, all_ in cases.items() for each in all_ if each.severity != "note" or each.override}
    assert alarms == {}


def faulty():
    """{case: (values of a picture, sigma and convention, what is found, its severity)}"""
    rng = np.random.default_rng(7)
    of_peak = {}  # counts of a peak of 1e4

    def counts(picture, **place):
        m = magnitude(picture, **place)
        gain = of_peak["gain"] = float(1e4 / (m**2).max())
        return rng.poisson(gain * m**2)

    def with_gain(factor):
        return lambda picture: {"quantity": "counts", "gain": factor * 1e4 / float((magnitude(picture) ** 2).max())}

    def saturated(picture):
        return np.minimum(counts(picture), 1000)

    def hot(picture):
        y = counts(picture)
        y[:, 20, 30] = 5000
        return y

    def without_a(part):
        def dead(picture):
            y = noisy(magnitude(picture), 0.05, rng)
            y[part] = 0
            return y

        return dead

    plain, of_counts = (lambda picture: {}), with_gain(1.0)
    cases = {}
    for r, c in ((1, 0), (0, 2), (-3, 1)):
        place = {"center": (48 + r, 48 + c)}
        override = f"data.center=[{48 + r},{48 + c}]"
        cases[f"magnitudes off by {r}, {c}"] = (
            lambda x, p=place: noisy(magnitude(x, **p), 0.0125, rng),
            plain,
            override,
            "refuse",
        )
        cases[f"counts off by {r}, {c}"] = (lambda x, p=place: counts(x, **p), of_counts, override, "refuse")
    half = {"center": (48.5, 47.5)}
    cases["half a pixel off"] = (lambda x: counts(x, **half), of_counts, "data.center=[48.5,47.5]", "warning")
    cases["background of 10"] = (
        lambda x: counts(x) + rng.poisson(10.0, (3, FRAME, FRAME)),
        of_counts,
        "data.background=",
        "warning",
    )
    cases["a tenth of the gain"] = (counts, with_gain(0.1), "data.scale=free", "warning")
    cases["a thousand times the gain"] = (counts, with_gain(1000.0), "a smaller data.gain", "warning")
    cases["counts as magnitudes"] = (counts, plain, "data.quantity=counts", "warning")
    cases["magnitudes as counts"] = (
        lambda x: noisy(magnitude(x), 0.05, rng),
        lambda x: {"quantity": "counts", "gain": 1.0},
        "data.quantity=magnitude",
        "warning",
    )
    cases["saturated"] = (saturated, of_counts, "data.mask=[1000]", "warning")
    cases["hot pixels"] = (hot, of_counts, "3 are far brighter", "warning")
    cases["a dead quadrant"] = (without_a((slice(None), slice(48), slice(48))), plain, "data.mask=[0.0]", "refuse")
    cases["a dead channel"] = (without_a(1), plain, "channel 1 is 0.0 in every pixel", "refuse")
    cases["more noise than told"] = (lambda x: noisy(magnitude(x), 0.15, rng), plain, "operator.sigma=0.", "warning")
    cases["an object of 40"] = (
        lambda x: rng.poisson(100 * magnitude(x[:, 12:52, 12:52]) ** 2),
        lambda x: {"quantity": "counts", "gain": 100.0},
        "data.support=[",
        "note",
    )
    return cases


FAULTS = faulty()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_found_with_its_remedy(case, name, found):
    values, keys, said, severity = FAULTS[case]
    picture = image(name, 0)
    convention = keys(picture)
    sigma = 0.05 if "gain" not in convention else 0.5 / convention["gain"] ** 0.5
    findings = found(values(picture), sigma, **convention)
    fitting = [each for each in findings if said in f"{each.value} {each.override}" and each.severity == severity]
    assert fitting, findings
    others = [each for each in findings if each not in fitting and each.severity != "note"]
    assert others == [], "one fault is one alarm"


def test_a_background_is_measured_without_the_bias_of_the_darkest_squares(found):
    m = magnitude(image(SETS[1], 3))
    gain = float(1e4 / (m**2).max())
    findings = found(np.random.default_rng(0).poisson(gain * m**2 + 10), 0.1, quantity="counts", gain=gain)
    (override,) = [each.override for each in findings if each.what == "background"]
    assert float(override.removeprefix("data.background=")) == pytest.approx(10, rel=0.07)


def test_the_center_of_a_binned_frame_is_told_in_pixels_of_the_file(tmp_path):
    """A file of 192 pixels in squares of two, whose zero frequency lies 4 pixels below its middle."""
    m = magnitude(image(SETS[0], 0), (50, 48))
    np.save(tmp_path / "y.npy", np.random.default_rng(0).poisson(250 * np.kron(m**2, np.ones((2, 2)))))
    convention = Convention(quantity="counts", gain=1000.0, bin=2)
    frame = Frame.of(read(tmp_path / "y.npy", convention), convention, SIDE, 0.016, "operator.sigma")
    (centre,) = [each for each in findings_of(frame) if each.what == "centre"]
    assert centre.override == "data.center=[100.5,96.5]"


def test_opposite_pixels_and_the_noise_of_their_rings():
    frame = np.arange(12.0).reshape(1, 3, 4)
    np.testing.assert_array_equal(opposite(frame, (1, 1)), [[[10, 9, 8, np.nan], [6, 5, 4, np.nan], [2, 1, 0, np.nan]]])
    np.testing.assert_array_equal(opposite(frame, (1, 1.5)), frame[:, ::-1, ::-1])
    noise = 3 + 0.2 * np.random.default_rng(0).standard_normal((1, 65, 65))
    radial = by_radius(noise, (32, 32))
    np.testing.assert_allclose(radial.mean[5:30], 3, atol=0.12)
    assert np.sqrt(np.mean(radial.noise[5:30] ** 2)) == pytest.approx(0.2, rel=0.05)
