"""`import latentdaps` computes what the command line computes, takes arrays, files and objects, and writes run folders."""

import io
import os
import re
import subprocess
import sys
from base64 import b64decode

import numpy as np
import pytest
import torch
from PIL import Image

import latentdaps
from latentdaps.model import IN_MEMORY, described
from operators.base import Operator
from tests.worlds import frames, runs
from tools import merge_runs, parse_metrics, report, status
from utils.metrics.pixels import to_pixels
from utils.paths import PROJECT
from utils.priors.latent_diffusion import load_pipeline
from utils.records.files import read_record, record_path

pytestmark = pytest.mark.heavy
TIMES = ("time", "device")


@pytest.fixture(scope="module")
def place(tiny_prior, tiny_images, tmp_path_factory):
    return runs.Place(tmp_path_factory.mktemp("from_python"), tiny_prior, tiny_images, particles=2)


@pytest.fixture(scope="module")
def model(place):
    return latentdaps.load(overrides=place.overrides)


@pytest.fixture(scope="module")
def images(tiny_images):
    """(3, 3, 16, 16) in [0, 1]."""
    files = sorted(tiny_images.glob("*.png"))[:3]
    return np.stack([np.asarray(Image.open(file), np.float32).transpose(2, 0, 1) / 255 for file in files])


@pytest.fixture(scope="module")
def result(model, images):
    return model.sample(model.measure(images[:2]), progress=False)


@pytest.fixture(autouse=True)
def without_pictures(no_pictures):
    pass


def record_of(folder, number):
    """(record without times and device, arrays) of one image of a run folder."""
    record, arrays = read_record(record_path(folder, number))
    return {key: value for key, value in record.items() if key not in TIMES}, arrays


def assert_same(one, other, but=()):
    (record, arrays), (record_too, arrays_too) = one, other
    assert {**record, **dict.fromkeys(but)} == {**record_too, **dict.fromkeys(but)}
    assert arrays.keys() == arrays_too.keys()
    for name, values in arrays.items():
        assert np.array_equal(values, arrays_too[name], equal_nan=True) and values.dtype == arrays_too[name].dtype, name


@pytest.mark.program
def test_a_record_is_that_of_the_command_line_bit_for_bit(place, model, tmp_path):
    runs.command(*place.all("command", "data.start_id=1", "data.end_id=2", "seed=7"))
    y = model.measure([place.images / "00001.png"], seed=7, start_id=1)
    saved = model.sample(y, progress=False).save(tmp_path / "saved")
    assert_same(record_of(saved, 1), record_of(place.path("command"), 1), but=["run"])


@pytest.mark.program
def test_an_array_gives_the_numbers_of_its_file(place, model, images, tmp_path):
    of_file, of_array = (model.sample(model.measure(each), False) for each in ([place.images / "00000.png"], images[:1]))
    folders = [each.save(tmp_path / name) for each, name in ((of_file, "file"), (of_array, "array"))]
    assert_same(*(record_of(folder, 0) for folder in folders), but=["file", "sha256", "fingerprint"])
    configs = [(folder / "config.yaml").read_text() for folder in folders]
    assert [f"root: {place.images}" in configs[0], "root: given in Python" in configs[1]] == [True, True]


@pytest.mark.program
def test_the_configured_images_are_the_run_itself_which_goes_on_there(place, tmp_path):
    overrides = place.all("both", "data.end_id=3")
    model = latentdaps.load(overrides=[*overrides, "data.end_id=2"])
    folder = model.sample(model.measure(), progress=False).save(place.path("both"))
    runs.run(*overrides)
    assert runs.metrics_of(folder)["metadata"]["image_ids"] == [0, 1, 2]
    assert len(set(record_of(folder, number)[0]["fingerprint"] for number in range(3))) == 1


def test_the_arrays_of_a_result_are_those_of_its_records(result):
    assert result.images.shape == (2, 2, 3, 16, 16) and result.loss.shape == (2, 2) and result.pick.shape == (2,)
    for i, (record, arrays, _) in enumerate(result._image_results):
        assert np.array_equal(to_pixels(torch.from_numpy(2 * result.images[i] - 1)), arrays["images"])
        assert result.loss[i].tolist() == record["loss"] and result.pick[i] == record["selection"]["picked"]
        assert np.abs(255 * result.aligned_mean[i].transpose(1, 2, 0) - arrays["summary_mean"]).max() <= 0.51
    assert result.pick.tolist() == result.loss.argmin(1).tolist()
    assert all(re.fullmatch(r"within|(above|below) \(\d+\.\d sd\)", word) for word in result.verdict)


def test_scores_of_a_truth_that_is_given_are_those_of_the_records(result, images):
    known, given = result.scores(), result.scores(torch.from_numpy(images[:2]))
    assert known.keys() == given.keys() >= {"psnr", "ssim", "psnr_aligned", "label"}
    assert (known["label"] == given["label"]).all() and known["label"].shape == (2, 2)
    for name in known.keys() - {"label"}:
        assert np.allclose(known[name], given[name], rtol=1e-4), name
    assert np.allclose(known["psnr"], [record["scores"]["psnr"] for record in result.records], rtol=1e-5)
    assert not np.allclose(result.scores(images[1:3])["psnr"], known["psnr"], rtol=1e-4)


def test_particles_that_are_not_there_at_the_end_are_nan(place, images):
    model = latentdaps.load(overrides=[*place.overrides, "num_samples=3"], pruning_step=500, pruning_keep=2)
    result = model.sample(model.measure(images[:1]), progress=False)
    gone = sorted(set(range(3)) - set(result.records[0]["survivors"]))
    assert len(gone) == 1 and np.isnan(result.images[0, gone]).all() and np.isnan(result.loss[0, gone]).all()
    assert np.isfinite(np.delete(result.images[0], gone, 0)).all()
    assert result.scores()["label"][0, gone] == [""] and np.isnan(result.scores()["psnr"][0, gone]).all()


@pytest.mark.program
def test_a_saved_folder_is_read_by_every_tool(model, images, tmp_path, capsys):
    one, two = (
        model.sample(model.measure(images[i : i + 1], start_id=i), progress=False).save(tmp_path / f"part{i}") for i in (0, 1)
    )
    assert "1 of 1 image done" in next(status.describe(one))
    merged = merge_runs.merge(tmp_path / "whole", [one, two])
    assert merged["metadata"]["image_ids"] == [0, 1]
    for tool, arguments in ((parse_metrics, []), (report, ["--out", str(tmp_path / "report.html")])):
        sys_argv, sys.argv = sys.argv, [tool.__name__, str(one), str(tmp_path / "whole"), *arguments]
        try:
            tool.main()
        finally:
            sys.argv = sys_argv
    assert "whole" in capsys.readouterr().out and "whole" in (tmp_path / "report.html").read_text()


def test_one_particle_alone_has_no_distance_and_is_its_own_mean(place, images):
    model = latentdaps.load(overrides=[*place.overrides, "num_samples=1"])
    result = model.sample(model.measure(images[:2]), progress=False)
    assert result.pick.tolist() == [0, 0] and np.array_equal(result.aligned_mean, result.images[:, 0])
    assert result.metrics["diversity"]["pairwise_distance"][0] == [None] * 3


def test_a_folder_of_other_images_is_refused(model, images, tmp_path):
    folder = model.sample(model.measure(images[:1]), progress=False).save(tmp_path / "run")
    other = model.sample(model.measure(images[1:2]), progress=False)
    with pytest.raises(latentdaps.InputError, match=r"was made from another image than 00000"):
        other.save(folder)
    with pytest.raises(latentdaps.InputError, match=r"^folder: has the type int; give the path of a run folder$"):
        other.save(3)


def test_a_measurement_that_was_changed_replaces_no_record_of_the_one_before(model, images, tmp_path):
    y = model.measure(images[:1])
    folder = model.sample(y, progress=False).save(tmp_path / "run")
    before = record_path(folder, 0).read_bytes()
    y.values[0, :, :4] = np.nan
    changed = model.sample(y, progress=False)
    with pytest.raises(latentdaps.InputError, match=r"00000\.npz was made from other values of the same measurement"):
        changed.save(folder)
    assert record_path(folder, 0).read_bytes() == before and changed.save(tmp_path / "other")


def test_a_truth_in_another_range_is_refused(result, images):
    with pytest.raises(latentdaps.InputError, match=r"^truth: goes from \d+ to 2\d\d; give an array"):
        result.scores(255 * images[:2])
    with pytest.raises(latentdaps.InputError, match=r"^truth: holds <U8 values, not real numbers; give an array"):
        result.scores("face.png")


def test_start_id_begins_where_it_says(model, images):
    assert [item.id for item in model.measure(images[:2], start_id=20).items] == [20, 21]
    assert model.measure(start_id=2).items[0].id == 2
    with pytest.raises(latentdaps.InputError, match="^start_id=-1: give a number from 0 on$"):
        model.measure(images, start_id=-1)


def test_measurements_of_others_have_no_truth(model, images):
    y = model.measure(images[:1])
    result = model.sample(torch.from_numpy(y.values), progress=False)
    known = model.sample(y, progress=False)
    assert np.array_equal(result.loss, known.loss) and result.records[0]["scores"]["psnr"] == [None, None]
    assert np.allclose(result.scores(images[:1])["psnr"], known.scores()["psnr"], rtol=1e-4)
    with pytest.raises(latentdaps.InputError, match="^truth: of the measurements none is known; give an array"):
        result.scores()


def test_numbers_of_an_instrument_are_read_as_the_configuration_means_them(place, model, images):
    keys = {"data.quantity": "counts", "data.gain": 100.0, "data.mask": [-1], "fidelity.photons": 100.0}
    keys |= {"fidelity.poisson": 1.0, "fidelity.gaussian": 0.0}
    counting = latentdaps.load(overrides=place.overrides, data="measurement", **keys)
    y = np.maximum(model.measure(images[:1]).values, 0)
    counts = 100 * y.astype(np.float64) ** 2
    counts[0, 0, :3, :3] = -1
    read = counting._of_others(counts).values
    assert np.isnan(read[0, 0, :3, :3]).all() and np.isnan(read).sum() == 9
    assert np.allclose(read[~np.isnan(read)], y[~np.isnan(read)], atol=1e-5)


def test_frames_are_read_about_the_centre_that_is_found(tmp_path):
    np.save(tmp_path / "frame.npy", frames.frame(frames.picture(), center=(51, 46)))
    of_files = {"data": "measurement", "data.root": str(tmp_path), "num_samples": 2, "gpu": -1}
    found, told, left = (
        latentdaps.load("demo-faces", **of_files, **{"data.center": center}).measure().values
        for center in ("auto", [51, 46], [51, 47])
    )
    assert np.array_equal(found, told, equal_nan=True) and not np.array_equal(found, left, equal_nan=True)


def test_counts_in_an_array_whose_likelihood_nothing_says_are_refused(place):
    model = latentdaps.load(overrides=place.overrides, data="measurement", **{"data.quantity": "counts", "data.gain": 100.0})
    with pytest.raises(latentdaps.InputError, match="^data.quantity=counts: the likelihood follows from a file, not from"):
        model.sample(np.ones((1, 3, 24, 24)), progress=False)
    for key, value in {"data.center": [12, 11], "data.support": 8}.items():
        with pytest.raises(latentdaps.InputError, match="no file can be read, which tells where its beam and its object lie"):
            latentdaps.load(overrides=place.overrides, data="measurement", **{key: value})


def test_what_is_changed_in_measurements_is_what_is_sampled(model, images):
    y = model.measure(images[:1])
    before = model.sample(y, progress=False)
    y.values[0, :, :4] = np.nan
    after = model.sample(y, progress=False)
    assert np.isnan(after._image_results[0].arrays["y"][:, :4]).all()
    assert after.noise_floor[0] < before.noise_floor[0] and not np.array_equal(after.images, before.images)


def test_another_seed_is_other_noise_of_measurement_and_particles(model, images):
    one, two, again = (model.measure(images[:1], seed=seed) for seed in (1, 2, 1))
    assert np.array_equal(one.values, again.values) and not np.array_equal(one.values, two.values)
    results = [model.sample(y, progress=False) for y in (one, two, again)]
    assert np.array_equal(results[0].images, results[2].images) and not np.array_equal(*(r.images for r in results[:2]))
    assert [r.records[0]["run"]["seed"] for r in results] == [1, 2, 1]


class Half(Operator):
    """The left half of an image, `gain` times."""

    linear = separable = True

    def __init__(self, gain):
        super().__init__(0.05)
        self.gain = gain

    def forward(self, x):
        return self.gain * x[..., : x.shape[-1] // 2]


@pytest.mark.program
def test_a_prior_and_an_operator_may_be_objects(place, images, tmp_path):
    prior = runs.load_analytic(None, torch.device("cpu"), None)
    model = latentdaps.load(prior=prior, operator=Half(1.0), overrides=runs.TINY[3:], num_samples=2)
    assert model.parts.prior is prior and model.parts.device.type == "cpu"
    result = model.sample(model.measure(images[:1]), progress=False)
    assert model.measure(images[:1]).values.shape == (1, 3, 16, 8)
    folder = result.save(tmp_path / "objects")
    config = (folder / "config.yaml").read_text()
    assert f"_target_: {__name__}.Half" in config and "path: given in Python" in config
    other = latentdaps.load(prior=prior, operator=Half(2.0), overrides=runs.TINY[3:], num_samples=2)
    with pytest.raises(
        latentdaps.InputError,
        match=r"another configuration: task\.operator\.digest is \w+ there and \w+ here; choose another name=",
    ):
        other.sample(other.measure(images[:1]), progress=False).save(folder)


@pytest.mark.parametrize(
    "keys, line",
    [
        ({"num_samples": 0}, r"^num_samples=0: input should be greater than or equal to 1$"),
        ({"num_sample": 3}, r"^num_sample=3: there is no such key; did you mean num_samples\?$"),
        ({"sampler": "fats"}, r"^sampler=fats: is no name of a configuration; in configs/sampler there are budget, "),
        ({"data": {"end": 3}}, r"^data\.end=3: there is no such key; did you mean data\.end_id\?$"),
        ({"overrides": ["repulsion_scale=-1"]}, r"^repulsion_scale=-1"),
        ({"name": "a/b\x00"}, r"^name="),
        ({"overrides": "num_samples=0"}, r"^num_samples=0: input"),
        ({"callbacks": "tensorboard"}, r"^callbacks=tensorboard: acts in posterior_sample\.py alone; give on_step to sample"),
        ({"workers": 2}, r"^workers=2: acts in posterior_sample\.py alone; leave it out"),
        ({"shard": "0/2"}, r"^shard=0/2: acts in posterior_sample\.py alone; give measure a part"),
        ({"save_arrays": ["npy"]}, r"^save_arrays=\['npy'\]: acts in posterior_sample\.py alone; result\.images"),
        ({"operator": len}, r"^operator: <built-in function len> has no sigma; give an object of your operator's class$"),
        ({"operator": Half}, r"^operator: <class .*Half'> has no sigma; give an object of your operator's class$"),
        ({"operator": Half(1.0), "task": "nonlinear_blur"}, r"^task_group=demo_langevin: this task has the groups "),
        ({"prior": torch.zeros(1)}, r"^prior: tensor\(\[0\.\]\) has no resolution; give an object of your prior's class$"),
        ({"prior": "demo-faces"}, r"^prior: 'demo-faces' has no device; give an object of your prior's class$"),
        ({"seed": object()}, r"^seed: object is no value of a configuration; give a text, a number, a list or a dict$"),
    ],
)
def test_wrong_keys_are_one_exception_with_the_line_of_the_command_line(keys, line):
    with pytest.raises(latentdaps.InputError, match=line) as caught:
        latentdaps.load(**keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images, line",
    [
        (
            np.zeros((1, 1, 16, 16)),
            r"^images\[0\]: has shape \(1, 16, 16\) and float64 from 0 to 0; give \(3, H, W\) in \[0, 1\], or paths$",
        ),
        (np.full((1, 3, 16, 16), 255), r"^images\[0\]: has shape \(3, 16, 16\) and int64 from 255 to 255; give"),
        (np.full((1, 3, 16, 16), np.nan), r"^images\[0\]: has shape \(3, 16, 16\) and float64 from nan to nan; give"),
        (np.zeros((0, 3, 16, 16)), r"^images: holds none"),
        ([], r"^images: holds none"),
        (3, r"^images: have the type int; give an array \(N, 3, H, W\), or paths$"),
        ("nowhere.png", r"^data\.root: nowhere\.png cannot be read \(No such file or directory\); name one that is there$"),
        (str(PROJECT / "dataset"), r"^data\.root: .*dataset cannot be read \(Is a directory\); name the files in it$"),
    ],
)
def test_wrong_images_are_one_line(model, images, line):
    with pytest.raises(latentdaps.InputError, match=line):
        model.measure(images)


@pytest.mark.parametrize(
    "y, line",
    [
        (np.zeros((1, 3, 5, 5), np.float32), r"^data\.root: y\[0\]: has shape \(3, 5, 5\); this task measures \(3, 24, 24\)$"),
        (np.zeros(3), r"^y: has shape \(3,\); give measurements \(N, \.\.\.\)$"),
        (np.full((1, 3, 24, 24), np.inf), r"^data\.root: y\[0\] cannot be read"),
        ([np.zeros((3, 24, 24)), np.zeros((3, 5, 5))], r"^list: is no array \(.*\); give one shape for all$"),
    ],
)
def test_wrong_measurements_are_one_line(model, y, line):
    with pytest.raises(latentdaps.InputError, match=line):
        model.sample(y, progress=False)


def test_what_cannot_be_called_is_refused_before_a_step(model):
    with pytest.raises(latentdaps.InputError, match="^on_step=3: cannot be called; give a function of one argument$"):
        model.sample(np.zeros((1, 3, 24, 24), np.float32), on_step=3)


def test_without_a_set_the_images_must_be_given(place):
    prior = runs.load_analytic(None, torch.device("cpu"), None)
    with pytest.raises(latentdaps.InputError, match="^images: none are given, and no data= names a set of them"):
        latentdaps.load(prior=prior, overrides=runs.TINY[3:]).measure()


@pytest.mark.parametrize(
    "value, text",
    [
        ("fast", "k=fast"),
        ("a b", "k=a b"),
        ("1.10", 'k="1.10"'),
        ("a=b", 'k="a=b"'),
        ("a,b", 'k="a,b"'),
        ('say "é"', 'k="say \\"é\\""'),
        (None, "k=null"),
        (True, "k=true"),
        (np.float32(0.5), "k=0.5"),
        (1e-5, "k=1e-05"),
        ([1, "a b", None], 'k=[1, "a b", null]'),
    ],
)
def test_values_are_written_as_on_the_command_line(value, text):
    from latentdaps.model import overrides_of
    from utils.config.compose import compose

    assert list(overrides_of("k", value)) == [text]
    read = compose([text.replace("k=", "++data.k=", 1)]).data.k
    assert read == ([1, "a b", None] if isinstance(value, list) else value)


def test_the_bar_can_be_switched_off(model, images, capfd):
    y = model.measure(images[:1])
    model.sample(y, progress=False)
    assert "steps" not in capfd.readouterr().err
    model.sample(y)
    assert re.search(r"^steps +\S+ 3/3 ", capfd.readouterr().err, re.MULTILINE)


def test_each_step_is_told(model, images):
    told = []
    model.sample(model.measure(images[:1]), progress=False, on_step=lambda info: told.append((info.step, len(info.loss))))
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_after_ctrl_c_the_model_gives_the_numbers_that_it_gives(model, images):
    def interrupt(info):
        raise KeyboardInterrupt

    y = model.measure(images[:1])
    with pytest.raises(KeyboardInterrupt):
        model.sample(y, progress=False, on_step=interrupt)
    again, other = (model.sample(y, progress=False) for _ in range(2))
    assert np.array_equal(again.images, other.images) and np.array_equal(again.loss, model.sample(y, False).loss)


@pytest.mark.heavy
def test_a_plot_shows_the_pick_and_leaves_matplotlib_as_it_was(result, monkeypatch):
    import matplotlib
    from matplotlib import pyplot as plt

    monkeypatch.setenv("MPLBACKEND", "svg")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 17.0)
    plt.switch_backend("svg")
    try:
        figure = result.plot()
        assert plt.get_backend() == "svg" and not plt.get_fignums() and matplotlib.rcParams["font.size"] == 17.0
        assert os.environ["MPLBACKEND"] == "svg"
    finally:
        plt.switch_backend("Agg")
    framed = [axis.get_title() for axis in figure.axes if any(s.get_visible() for s in axis.spines.values())]
    assert [title.split(":")[0] for title in framed] == [f"p{pick}" for pick in result.pick]


def test_a_notebook_shows_a_line_an_image_and_a_picture(result):
    result.records[0]["file"], before = "<b>.png", result.records[0]["file"]
    shown = result._repr_html_()
    result.records[0]["file"] = before
    with Image.open(io.BytesIO(b64decode(re.search(r"base64,([^\"]*)", shown)[1]))) as picture:
        low, high = picture.convert("L").getextrema()
    assert high - low > 200
    assert "&lt;b&gt;.png" in shown and "<b>" not in shown
    line = rf"^image 1 \(00001\): pick {result.pick[1]}, (within|(above|below) \(.*\)), \d+\.\d\d dB$"
    assert re.search(line, repr(result), re.MULTILINE)


def test_the_import_needs_no_torch():
    line = "import sys, latentdaps; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_an_object_of_bfloat16_has_a_digest_too():
    """NumPy has no such numbers, and `load(prior=...)` ended in its TypeError."""

    class Part:
        def __init__(self, dtype, value=2.0):
            self.weights = torch.full((2, 3), value).to(dtype)

    parts = [Part(torch.bfloat16), Part(torch.bfloat16), Part(torch.bfloat16, 3.0), Part(torch.float32)]
    digests = [described(part)["digest"] for part in parts]
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_an_object_has_the_digest_of_the_networks_and_arrays_that_it_holds():
    """A shipped prior is no network itself: it holds an autoencoder and a UNet."""

    class Holding:
        def __init__(self, weight=1.0, steps=(1.0, 2.0)):
            self.unet = torch.nn.Linear(1, 1)
            torch.nn.init.constant_(self.unet.weight, weight)
            torch.nn.init.zeros_(self.unet.bias)
            self.steps, self.itself = {"of": [np.array(steps)]}, self

    one, same, other, longer = (
        described(part)["digest"] for part in (Holding(), Holding(), Holding(2.0), Holding(steps=(1, 3)))
    )
    assert one == same and len({one, other, longer}) == 3


def test_a_prior_that_is_given_stays_as_it_is(tiny_prior):
    prior = load_pipeline(tiny_prior, torch.device("cpu"))
    pixels, before = torch.zeros(1, 3, 16, 16), described(prior)
    expected = prior.encode(pixels)
    model = latentdaps.load(prior=prior, overrides=[*runs.TINY[3:], "precision=bf16"])
    assert model.parts.prior is not prior
    assert torch.equal(prior.encode(pixels), expected) and described(prior) == before


def test_an_experiment_leaves_the_set_of_its_name_unless_it_has_one():
    faces, photos = (latentdaps.load("natural-32", experiment=name).settings.data for name in ("exp1_repulsion", "exp8_coarse"))
    assert (faces.root, photos.root) == (IN_MEMORY, "dataset/demo-photos")
    assert latentdaps.load("demo-scenes", experiment="exp1_repulsion").settings.data.root == "dataset/demo-scenes"


def test_whole_numbers_of_numpy_are_numbers(model, images):
    y = model.measure(images[:1], seed=np.int64(7), start_id=np.int32(3))
    assert (y.seed, y.items[0].id) == (7, 3) and np.array_equal(y.values, model.measure(images[:1], seed=7, start_id=3).values)
    with pytest.raises(latentdaps.InputError, match=r"^seed='x': give a whole number$"):
        model.measure(images[:1], seed="x")


def test_a_background_that_the_likelihood_has_is_not_taken_off_an_array(place, model, images):
    keys = {"data.quantity": "counts", "data.gain": 100.0, "data.background": 5.0, "fidelity.background": 5.0}
    keys |= {"fidelity.photons": 100.0, "fidelity.poisson": 1.0, "fidelity.gaussian": 0.0}
    counting = latentdaps.load(overrides=place.overrides, data="measurement", **keys)
    counts = 5 + 100 * model.measure(images[:1]).values.astype(np.float64) ** 2
    assert np.allclose(counting._of_others(counts).values, (counts / 100) ** 0.5, atol=1e-5)


def test_counts_in_an_array_without_a_gain_are_refused(place):
    keys = {"data.quantity": "counts", "data.scale": "free", "fidelity.photons": 1000.0, "fidelity.poisson": 1.0}
    model = latentdaps.load(overrides=place.overrides, data="measurement", **keys)
    with pytest.raises(latentdaps.InputError, match=r"^data\.quantity=counts: of an array the gain must be told"):
        model.sample(np.ones((1, 3, 24, 24)), progress=False)
