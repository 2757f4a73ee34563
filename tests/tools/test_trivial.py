"""Trivial reconstructions, and the comparison of a run with them."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from operators.blur import GaussianBlur
from operators.hdr import HighDynamicRange
from operators.inpainting import Inpainting
from operators.phase_retrieval import PhaseRetrieval
from operators.super_resolution import SuperResolution
from operators.trivial import trivial_reconstructions
from tests.worlds.synthetic import write_run
from tools.demo_prior.make_demo_data import SEEDS, demo_image
from tools.evidence import keep_evidence, trivial_reconstruction
from utils import command_line
from utils.analysis import runs
from utils.analysis.comparison import compare
from utils.analysis.experiments import gather
from utils.analysis.tables import build, markdown
from utils.errors import InputError

OPERATORS = {
    "down_sampling": SuperResolution(32, 4),
    "inpainting": Inpainting(32, "box", [8, 9], margin=4),
    "gaussian_blur": GaussianBlur(9, 1.0),
    "hdr": HighDynamicRange(2.0),
}


@pytest.fixture(scope="module")
def images():
    """(2, 3, 32, 32), constant below row 8 and right of column 4."""
    x = torch.zeros(2, 3, 32, 32)
    x[0, :, :8], x[1, :, :, 4:] = 0.4, -0.3
    return x


@pytest.mark.parametrize("task", OPERATORS)
def test_all_are_images_and_the_mean_image_is_among_them(task, images):
    mean = torch.full((3, 32, 32), 0.1)
    found = trivial_reconstructions(OPERATORS[task], OPERATORS[task](images), mean)
    assert len(found) > 1 and all(x.shape == images.shape for x in found.values())
    assert torch.equal(found["mean image"], mean.expand(2, -1, -1, -1))


def test_each_inverts_what_can_be_inverted_without_a_prior(images):
    mean = torch.full((3, 32, 32), 0.1)
    made = {task: trivial_reconstructions(operator, operator(images), mean) for task, operator in OPERATORS.items()}
    flat = (slice(None), slice(None), slice(24, 32), slice(24, 32))  # out of reach of the kernels at those edges
    assert torch.allclose(made["down_sampling"]["nearest enlargement"][flat], images[flat], atol=1e-5)
    assert torch.allclose(made["down_sampling"]["bicubic enlargement"][flat], images[flat], atol=1e-5)
    assert torch.allclose(made["gaussian_blur"]["measurement"][flat], images[flat], atol=1e-5)
    assert torch.allclose(made["hdr"]["measurement / scale"], images)  # nothing lies beyond the sensor's range
    mask = OPERATORS["inpainting"].mask.bool().expand_as(images)
    filled = made["inpainting"]["filled with the mean image"]
    assert torch.equal(filled[mask], images[mask]) and (filled[~mask] == 0.1).all()


def test_an_operator_without_one_is_refused(images):
    with pytest.raises(InputError, match="PhaseRetrieval: has no trivial reconstruction"):
        trivial_reconstructions(PhaseRetrieval(), images, images[0])


@pytest.mark.heavy
def test_the_mean_image_is_that_of_the_training_split(composed):
    from utils.config.check import check

    mean = trivial_reconstruction.mean_image(check(composed()))
    train = np.mean([demo_image("faces", SEEDS["train"], i) for i in range(trivial_reconstruction.MEAN_OF)], axis=0)
    assert np.allclose(mean.numpy().transpose(1, 2, 0), train / 127.5 - 1, atol=1e-6)
    with pytest.raises(InputError, match="data.root=elsewhere"):
        trivial_reconstruction.mean_image(check(composed("data.root=elsewhere")))


@pytest.mark.heavy
def test_the_mean_image_of_a_folder(composed, tmp_path):
    from utils.config.check import check

    for i, grey in enumerate((0, 51, 204)):
        Image.fromarray(np.full((20, 30, 3), grey, np.uint8)).save(tmp_path / f"{i}.png")
    mean = trivial_reconstruction.mean_image(check(composed("data.root=elsewhere")), tmp_path)
    assert torch.allclose(mean, torch.full((3, 64, 64), -1 / 3), atol=1e-6)
    with pytest.raises(InputError, match="has no images"):
        trivial_reconstruction.mean_image(check(composed()), tmp_path / "none")


@pytest.mark.program
@pytest.mark.slow
def test_the_tool_measures_as_the_program_does(run, monkeypatch, tmp_path):
    """On a finished run it scores the y of the records."""
    folder, _ = run("task=hdr", "num_samples=2", "task.demo_langevin.mcmc_sampler_config.num_steps=1")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("shard: 0/1", "shard: 1/2"))  # as a shard that ended last leaves it
    monkeypatch.setattr(trivial_reconstruction, "mean_image", lambda settings, of: torch.zeros(3, 16, 16))
    monkeypatch.setattr(sys, "argv", ["trivial_reconstruction.py", str(folder)])
    command_line.run(trivial_reconstruction.main)
    found, (run_of_tasks,) = json.loads((folder / "trivial.json").read_text()), [runs.load(folder / "metrics.json")]
    for (_, arrays), score in zip(run_of_tasks.records(wanted=("y", "truth")), found["psnr"]["measurement"], strict=True):
        error = np.clip(arrays["y"] / 2 + 0.5, 0, 1) - arrays["truth"].transpose(2, 0, 1) / 255
        assert score == pytest.approx(-10 * np.log10((error**2).mean()), abs=0.05)  # the record's truth has 8 bits
    keep_evidence.keep(folder, tmp_path / "kept")
    assert trivial_reconstruction.evaluate(tmp_path / "kept") == found


def trivial_json(folder, scores, ids=(0, 1)):
    (folder / "trivial.json").write_text(
        json.dumps({"image_ids": list(ids), "floor": "bicubic", "psnr": {"mean image": [1.0] * len(ids), "bicubic": scores}})
    )


def test_the_gain_is_paired_on_the_images(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["0", "failed"], ["0", "0"]], pictures=False)  # means 18.5 and 25.1
    trivial_json(folder, [18.0, 20.1])
    (summary,) = compare(gather([runs.load(folder / "metrics.json")]))
    assert summary["trivial"]["name"] == "bicubic" and summary["trivial"]["psnr"]["mean"] == pytest.approx(19.05)
    assert summary["trivial"]["gain"]["difference"] == pytest.approx((0.5 + 5.0) / 2) and summary["trivial"]["gain"]["n"] == 2
    text = markdown(build("tasks", [summary]))
    print(text)
    assert "| exp0 | 2 | 2 | bicubic | 19.05 ± 1.48 | 21.80 ± 4.67 |" in text and "| +2.75 |" in text  # of two no interval
    kept = tmp_path / "kept"
    keep_evidence.keep(folder, kept)
    assert (kept / "trivial.json").read_text() == (folder / "trivial.json").read_text()


def test_a_run_without_trivial_reconstructions_is_in_no_such_table(tmp_path, composed):
    folder = write_run(tmp_path, composed, [["0"]], pictures=False)
    assert build("tasks", compare(gather([runs.load(folder / "metrics.json")]))) is None


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: trivial_json(f, [18.0], ids=(0,)), "has no image 1"),
        (lambda f: (f / "trivial.json").write_text("{"), "damaged"),
        (lambda f: trivial_json(f, [18.0]), "damaged"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, composed, damage, message):
    folder = write_run(tmp_path, composed, [["0"], ["0"]], pictures=False)
    damage(folder)
    with pytest.raises(InputError, match=message):
        gather([runs.load(folder / "metrics.json")])
