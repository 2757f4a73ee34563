"""tools/prior_quality.py: the distance is what its formula says, and worse samples are further away."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tools.demo_prior import prior_quality
from tools.demo_prior.real_images import Family, Folder
from utils.command_line import run
from utils.errors import InputError
from utils.paths import PROJECT


def test_frechet_distance_of_gaussians_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((200_000, 3))
    b = a * np.array([1.0, 2.0, 3.0]) + np.array([1.0, 0.0, -2.0])
    # |mean difference|^2 + sum (std difference)^2, for covariances that commute
    assert prior_quality.frechet(a, b) == pytest.approx(1 + 4 + 1 + 4, rel=0.02)
    assert prior_quality.frechet(a, a) == pytest.approx(0, abs=1e-9)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    assert prior_quality.frechet(a @ turn, b @ turn) == pytest.approx(prior_quality.frechet(a, b))


def test_features_see_layout_and_detail():
    z = torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = prior_quality.features(z)
    assert plain.shape == (6, 4 * 18)
    smooth = prior_quality.features(torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(z, 2), scale_factor=2))
    pooled, fine, coarse = slice(0, 64), slice(64, 68), slice(68, 72)
    np.testing.assert_allclose(smooth[:, pooled], plain[:, pooled], atol=1e-5)
    np.testing.assert_allclose(smooth[:, coarse], plain[:, coarse], atol=1e-4)
    assert (smooth[:, fine] < plain[:, fine] - 5).all()
    assert np.abs(prior_quality.features(z.flip(-1, -2))[:, pooled] - plain[:, pooled]).max() > 0.1


def test_the_floor_is_below_the_distance_of_anything_else():
    rng = np.random.default_rng(1)
    real, same, shifted, narrow = (rng.standard_normal((n, 8)) for n in (400, 200, 200, 200))
    distance, floor = prior_quality.distances(same, real)
    assert distance.mean() < 1.6 * floor.mean()
    for wrong in (shifted + 0.3, narrow * 0.6):
        assert prior_quality.distances(wrong, real)[0].mean() > 2.5 * floor.mean()


@pytest.mark.heavy
def test_scenes_are_rotated_as_in_training_and_faces_are_not():
    from tools.demo_prior.make_demo_data import SEEDS, demo_images

    for family, fraction in (("faces", 0.0), ("scenes", 0.5)):
        images = Family(family).draw(60, 64)
        drawn = torch.from_numpy(demo_images(family, SEEDS["test"], 60)).permute(0, 3, 1, 2) / 127.5 - 1
        turned = (images != drawn).flatten(1).any(1).float().mean()
        assert turned == 0 if fraction == 0 else 0.3 < turned < 0.7


@pytest.mark.heavy
@torch.no_grad()
def test_a_coarse_solver_is_further_away_and_figures_are_complete():
    from utils.priors.latent_diffusion import load_pipeline

    prior = load_pipeline(PROJECT / "checkpoints" / "demo-faces", torch.device("cpu"))
    figures, latents = prior_quality.measure(prior, Family("faces"), 20, 12)
    coarse, _ = prior_quality.measure(prior, Family("faces"), 20, 2)
    assert latents.shape == (20, 4, 16, 16) and coarse["ratio"] > 1.5 * figures["ratio"]
    assert coarse["detail"]["ratio"] > figures["detail"]["ratio"] and {*figures["layout"]} == {"distance", "floor", "ratio"}
    assert figures["floor"] == coarse["floor"] and figures["decoder_ms"] > 0
    assert 28 < figures["psnr_rotated"]["min"] < figures["psnr_rotated"]["mean"]


@pytest.mark.heavy
@torch.no_grad()
def test_samples_are_nearer_to_a_folder_of_what_the_prior_knows():
    from utils.priors.latent_diffusion import load_pipeline

    prior = load_pipeline(PROJECT / "checkpoints" / "demo-faces", torch.device("cpu"))
    faces, scenes = (
        prior_quality.measure(prior, Folder(PROJECT / "dataset" / f"demo-{name}"), 20, 8)[0] for name in ("faces", "scenes")
    )
    assert scenes["distance"]["mean"] > 2 * faces["distance"]["mean"] and faces["images"] == 100
    # the same images in another order, so up to the rounding of a sum
    assert faces["psnr_upright"] == pytest.approx(prior_quality.autoencoder_psnr(prior, Family("faces"))["psnr_upright"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("checkpoints/celeba",), "its family: faces, scenes"),
        (("--count", "5"), "at least 20 samples"),
        (("nowhere/demo-faces",), "nowhere/demo-faces"),
        (("--images", "nowhere"), "images=nowhere: folder"),
        (("--images", "dataset/demo-faces", "--count", "60"), "count=60: samples are compared with twice as many images"),
        (("--images", "dataset/demo-faces", "--count", "60"), "has 100; give more images, or --count 50"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["prior_quality.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        run(prior_quality.main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def test_too_few_images_for_any_count_are_said_so(tmp_path):
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="has 3; give 40 images at least"):
        Folder(tmp_path).check(40)
