"""What frames say of the operator: their size, where the beam lay, how large the object is; all of it of drawn pictures."""

import logging

import numpy as np
import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from tests.worlds import runs
from tests.worlds.frames import SIDE, SIGMA, frame, picture
from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.diagnosis.support import estimate_support
from utils.digests import other_content
from utils.errors import InputError
from utils.running import geometry
from utils.running.build import load_operator
from utils.running.geometry import FOUND, digests_of, geometry_of


@pytest.fixture
def of(tmp_path):
    """of(frames, overrides ...) -> settings of a run on these frames."""
    folder = tmp_path / "frames"
    folder.mkdir()

    def settings(frames, *overrides):
        for i, y in enumerate(frames):
            np.save(folder / f"{i}.npy", y)
        return check(compose(["gpu=-1", "data=measurement", f"data.root={folder}", *overrides]))

    return settings


def test_a_frame_of_the_tasks_size_leaves_the_operator_alone(of):
    settings = of([frame(picture())])
    assert geometry_of(settings).arguments() == {}
    operator = load_operator(settings)
    assert operator.frame is None and operator.offset == (0, 0) and operator.support is None


@pytest.mark.parametrize("shape", [(128, 128), (97, 97), (128, 80), (64, 64)])
def test_the_operator_measures_as_many_samples_as_the_frame_has(of, shape):
    x = picture()
    settings = of([frame(x, shape)])
    y = load_operator(settings)(2 * torch.from_numpy(x)[None].float() - 1)[0].numpy()
    assert y.shape == (3, *shape)
    assert np.std(y - frame(x, shape)) == pytest.approx(SIGMA, rel=0.03)  # the noise alone: sizes and places agree


@pytest.mark.parametrize("shape", [(63, 96), (96, 513), (7, 7)])
def test_a_frame_smaller_than_the_object_or_far_larger_is_left_to_the_check_of_shapes(of, shape):
    assert geometry_of(of([np.ones((3, *shape))])).arguments() == {}


def measured(settings):
    """The first file, as a run reads it."""
    return loaded_items(settings)[0].values()


def loaded_items(settings):
    geometry = geometry_of(settings)
    return [geometry.of(item) for item in select_images(settings)]


@pytest.mark.parametrize("center", [[50.0, 47.0], [48.5, 47.5], [45.3, 49.2]])
@pytest.mark.parametrize("found", [False, True])
def test_the_operator_measures_about_the_centre_that_is_given_or_found(of, center, found):
    x = picture()
    given = "auto" if found else str(center).replace(" ", "")
    settings = of([frame(x, center=center)], f"data.center={given}")
    assert geometry_of(settings).convention.center == pytest.approx(center, abs=0.021 if found else 0)
    off = load_operator(settings)(2 * torch.from_numpy(x)[None].float() - 1)[0].numpy() - measured(settings)
    assert np.nanstd(off) < 1.03 * SIGMA
    assert (np.isnan(off[0]).all(1).sum(), np.isnan(off[0]).all(0).sum()) == tuple(
        abs(int(np.floor(place + 0.5)) - 48) for place in center
    )


def test_an_off_centre_frame_taken_for_shifted_is_far_off(of):
    """Negative control of the test above."""
    x = picture()
    settings = of([frame(x, center=[50.0, 47.0])])
    off = load_operator(settings)(2 * torch.from_numpy(x)[None].float() - 1)[0].numpy() - measured(settings)
    assert np.nanstd(off) > 5 * SIGMA


def test_one_centre_serves_all_files_of_the_set_and_two_are_refused(of, caplog):
    caplog.set_level(logging.INFO)
    frames = [frame(picture(seed), center=(50, 47), seed=seed) for seed in range(3)]
    settings = of(frames, "data.center=auto", "data.end_id=1")
    assert geometry_of(settings).convention.center == pytest.approx([50, 47], abs=0.021)
    assert "data.center=auto: data.center=[" in caplog.text
    other = of([*frames, frame(picture(3), center=(46, 47))], "data.center=auto", "data.end_id=1")
    with pytest.raises(InputError, match="data.center=auto: the files' centres differ") as caught:
        geometry_of(other)
    assert "\n" not in str(caught.value)


def test_frames_without_a_centre_of_symmetry_are_refused(of):
    with pytest.raises(InputError, match=r"data.center=auto: .*0.npy has no centre .*; write data.center=\[row,column\]"):
        geometry_of(of([np.ones((3, 96, 96))], "data.center=auto"))


def near_the_border(seed=0):
    """A frame whose zero frequency lies eight pixels from its corner."""
    return frame(picture(seed), (96, 96), (88, 88), seed)


def test_a_centre_far_from_the_middle_is_used_with_a_warning(of, caplog):
    settings = of([frame(picture(), center=(38, 57))], "data.center=auto")
    assert geometry_of(settings).convention.center == pytest.approx([38, 57], abs=0.021)
    assert [r.levelname for r in caplog.records if "is likely and not sure" in r.getMessage()] == ["WARNING"]


def test_a_centre_that_does_not_stand_out_is_refused_and_not_used(of):
    """It was found 48 pixels off, and the run went on."""
    with pytest.raises(InputError, match=r"data.center=auto: .*0.npy has no centre .*; write data.center=\[row,column\]"):
        geometry_of(of([near_the_border()], "data.center=auto"))


def test_files_that_do_not_tell_their_centre_leave_it_to_the_others(of, caplog):
    caplog.set_level(logging.INFO)
    settings = of([near_the_border(), frame(picture(1), center=(50, 47), seed=1)], "data.center=auto")
    assert geometry_of(settings).convention.center == pytest.approx([50, 47], abs=0.021)
    assert "data.center=auto: 1 of 2 files do not tell their centre, as 0.npy" in caplog.text


@pytest.mark.parametrize("given, box", [("40", (40, 40)), ("[40,24]", (40, 24)), ("[41,64]", (42, 64)), ("auto", (40, 28))])
def test_a_support_lies_in_the_middle_and_is_never_narrower(of, given, box):
    support = load_operator(of([frame(picture(0, 40, 28))], f"data.support={given}")).support.numpy()
    expected = np.zeros((SIDE, SIDE), bool)
    rows, columns = ((SIDE - side) // 2 for side in box)
    expected[rows : SIDE - rows, columns : SIDE - columns] = True
    np.testing.assert_array_equal(support, expected)


@pytest.mark.parametrize("frames", [[picture()], [picture(0, 40, 40), picture()]])
def test_the_support_that_is_found_holds_every_object(of, frames):
    assert geometry_of(of([frame(x, (128, 128)) for x in frames], "data.support=auto")).inside is None


@pytest.mark.parametrize("side", [24, 33, 48])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_the_autocorrelation_ends_where_the_object_does(side, offset):
    y = frame(picture(1, side, side), (128, 131), (64 + offset, 65))
    assert estimate_support(y, SIGMA) == (side, side)
    assert min(estimate_support(y, 3 * SIGMA)) >= side - 1  # a noise that is overstated
    y[:, 30:40, 20:50] = np.nan
    y[:, :3] = np.nan
    assert min(estimate_support(y, SIGMA)) >= side - 1


@pytest.mark.parametrize("side", [24, 33, 48])
@pytest.mark.parametrize("stop", [5, 9])
def test_behind_a_beam_stop_the_object_is_found(side, stop):
    y = frame(picture(1, side, side), (128, 131))
    whole = frame(picture(1), (128, 131))
    for values in (y, whole):
        values[:, 64 - stop // 2 : 65 + stop // 2, 65 - stop // 2 : 66 + stop // 2] = np.nan
    assert estimate_support(y, SIGMA) == (side, side)
    assert estimate_support(whole, SIGMA) == (128, 131), "a whole field has no end"


@pytest.mark.parametrize("told", [SIGMA, 0.0])
def test_a_frame_without_noise_has_an_end(told):
    y = frame(picture(0, 40, 24), (128, 128), sigma=0).astype(np.float32)
    assert estimate_support(y.astype(np.float64), told) == (40, 24)


def test_a_stop_that_leaves_too_few_lags_finds_no_end():
    y = frame(picture(1, 24, 24), (96, 96))
    y[:, 24:73, 24:73] = np.nan
    assert estimate_support(y, SIGMA) == (96, 96)


def test_a_drawn_support_is_that_of_its_file_and_is_none_of_the_measurements(of, tmp_path):
    drawn = np.zeros((1, SIDE, SIDE))
    drawn[0, 10:40, 12:50], drawn[0, 10:20, 12:20] = 2, 0
    file = tmp_path / "frames/support.npy"
    np.save(file, drawn)
    settings = of([frame(picture())], f"data.support={file}")
    operator = load_operator(settings)
    np.testing.assert_array_equal(operator.support.numpy(), drawn[0] != 0)
    assert not operator.turns and [item.path.name for item in select_images(settings)] == ["0.npy"]
    before = loaded_items(settings)[0].sha256
    np.save(file, drawn[:, ::-1])
    assert loaded_items(settings)[0].sha256 != before


@pytest.mark.parametrize(
    "drawn, message",
    [
        (np.ones((32, 32)), "is float64 of shape .32, 32.; write 64 x 64"),
        (np.zeros((64, 64)), "is 0 everywhere"),
        (np.pad(np.ones((20, 20)), ((3, 41), (22, 22))), "its own turn by 180 degrees, but not about the middle"),
    ],
)
def test_a_drawn_support_that_says_nothing_is_one_line(of, tmp_path, drawn, message):
    np.save(tmp_path / "support.npy", drawn)
    with pytest.raises(InputError, match=rf"data.support=.*{message}") as caught:
        geometry_of(of([frame(picture())], f"data.support={tmp_path / 'support.npy'}"))
    assert "\n" not in str(caught.value)


def test_further_files_that_change_what_was_found_are_told_by_a_digest(of):
    """They enlarged the support of the images that were left, and one run had two operators."""
    small, large = frame(picture(0, 40, 28), (128, 128)), frame(picture(1, 48, 28), (128, 128))
    found = [digests_of(geometry_of(s), s) for s in (of(frames, "data.support=auto") for frames in ([small], [small] * 2))]
    assert found[0] == found[1] != {}
    settings = of([small, large], "data.support=auto")
    assert digests_of(geometry_of(settings), settings) != found[0]
    assert other_content(found[0], digests_of(geometry_of(settings), settings)) == f"another content of {FOUND}"
    given = of([small], "data.support=40", "data.center=[64,64]")
    assert digests_of(geometry_of(given), given) == {}


@pytest.mark.program
def test_a_run_does_not_go_on_with_another_support(tiny_prior, no_pictures, tmp_path, monkeypatch):
    """The images that were left would be measured by another operator than those that are done."""
    monkeypatch.setattr(geometry, "estimate_support", lambda y, noise: (8, 8) if np.nanmax(y) < 4.3 else (12, 12))
    place, keys = runs.Place(tmp_path, tiny_prior), ("data=measurement", f"data.root={tmp_path / 'y'}", "data.support=auto")
    (tmp_path / "y").mkdir()
    grey = 2 * torch.rand(1, 3, runs.SIDE, runs.SIDE, generator=torch.Generator().manual_seed(0)) - 1
    for name, x in (("a", grey - 0.5), ("b", grey)):
        np.save(tmp_path / f"{name}.npy", PhaseRetrieval()(x.clamp(-1, 1))[0].numpy())
    (tmp_path / "a.npy").rename(tmp_path / "y/a.npy")
    place.run("found", *keys, "data.end_id=1")
    place.run("found", *keys, "data.end_id=1")
    (tmp_path / "b.npy").rename(tmp_path / "y/b.npy")
    with pytest.raises(InputError, match=f"was made with another content of {FOUND}"):
        place.run("found", *keys, "data.end_id=2")


def test_without_a_file_the_operator_is_the_tasks_own_unless_a_key_asks_for_another(of, tmp_path):
    assert geometry_of(of([])).arguments() == {}
    for key in ("center=auto", "center=[48,47]", "support=40"):
        with pytest.raises(InputError, match="data.root=.*: no file can be read"):
            geometry_of(of([], f"data.{key}"))
