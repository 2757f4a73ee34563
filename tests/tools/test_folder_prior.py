"""From a folder of pictures to a prior that posterior_sample.py takes: the whole way, with networks of a few weights."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from tests.worlds.kills import contents, killed
from tools.demo_prior import networks, train_prior, unet_stage, views
from tools.demo_prior.settings import training_of
from tools.demo_prior.training import Trainer
from utils.errors import InputError
from utils.paths import PROJECT


@pytest.fixture
def configured(tiny_images, tmp_path):
    """configured(work, *overrides) -> config of a training that takes a second."""

    def make(work, *overrides):
        small = (
            f"data.root={tiny_images} data.resolution=16 data.held_out=0.3 name=own save_every=2 "
            "autoencoder.channels=[8,8] autoencoder.steps=4 autoencoder.batch=4 "
            "unet.channels=[8,32] unet.steps=4 unet.batch=4"
        ).split()
        with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
            folders = [f"work={tmp_path / work}", f"out={tmp_path / work / 'out'}"]
            return compose("train_prior", overrides=[*small, *folders, *overrides])

    return make


def weights(folder):
    return {part: load_file(folder / part / "diffusion_pytorch_model.safetensors") for part in ("vqvae", "unet")}


@pytest.mark.program
def test_the_prior_of_a_folder_reconstructs_its_held_out_images(configured, composed, tiny, tmp_path, capsys):
    import posterior_sample

    train_prior.train(configured("work"))
    prior, work = tmp_path / "work/out/own", tmp_path / "work/own"
    assert (prior / "held_out.txt").read_text() == (work / "held_out.txt").read_text() != ""
    assert (work / "autoencoder.png").exists() and (work / "unet.png").exists()
    assert "quality: not measured" in capsys.readouterr().out, "too few images are held out here"

    common = [override for override in tiny if not override.startswith(("model.", "data."))]
    mine = ["model=own", f"model.path={prior}", "model.resolution=16", "data=folder", f"data.root={work / 'held_out'}"]
    cfg = composed(*common, *mine, "data.end_id=1", "num_samples=2")
    posterior_sample.run(cfg)
    assert (tmp_path / "results/run/metrics.json").exists()


@pytest.mark.program
def test_a_killed_training_goes_on_to_the_same_prior(configured, tmp_path, monkeypatch):
    train_prior.train(configured("straight", "data.flip=true", "data.rotate=true"))
    save = Trainer.save

    def save_and_die(trainer):
        save(trainer)
        if trainer.step == 2:
            raise KeyboardInterrupt

    for _ in ("autoencoder", "unet"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "save", save_and_die)
            train_prior.train(configured("killed", "data.flip=true", "data.rotate=true"))
    train_prior.train(configured("killed", "data.flip=true", "data.rotate=true"))
    straight, killed = (weights(tmp_path / name / "out/own") for name in ("straight", "killed"))
    assert all(torch.equal(straight[part][key], killed[part][key]) for part in straight for key in straight[part])


@pytest.fixture
def trained(configured, tmp_path):
    """A training that has come to its last two stages: (their config, folder of the finished prior)."""
    train_prior.train(configured("work", "stages=[autoencoder,unet]", "autoencoder.steps=1", "unet.steps=1"))
    return configured("work", "stages=[export,quality]"), tmp_path / "work/out/own"


@pytest.mark.program
def test_a_finished_prior_is_moved_aside_with_its_certificate_whenever_the_end_is_killed(trained, tmp_path, capsys):
    cfg, prior = trained
    old = {"model_index.json": b"old", "certificate.json": b"calibrated"}
    at, was_killed, results = 0, True, []
    while was_killed:
        at += 1
        shutil.rmtree(prior.parent, ignore_errors=True)
        prior.mkdir(parents=True)
        for name, content in old.items():
            (prior / name).write_bytes(content)
        was_killed = killed(at, tmp_path / "work", lambda: train_prior.train(cfg))
        assert old.items() <= {**contents(prior), **contents(f"{prior}.1")}.items()
        train_prior.train(cfg)
        assert contents(f"{prior}.1") == old
        results.append(contents(prior))
        assert all(result == results[0] for result in results)
    assert at > 5 and "unet/diffusion_pytorch_model.safetensors" in results[0] and "certificate.json" not in results[0]
    assert f"{prior}.1: the prior that was there before, with its certificates" in capsys.readouterr().out
    (prior / "certificate.json").write_text("new")
    train_prior.train(cfg)
    assert contents(prior) == {**results[0], "certificate.json": b"new"}, "the same prior stays"
    assert [path.name for path in sorted(prior.parent.glob("own*"))] == ["own", "own.1"]


@pytest.mark.program
def test_networks_that_are_missing_or_damaged_are_one_line(trained, tmp_path):
    cfg, _ = trained
    for part, stage in (("unet_unet", "unet"), ("autoencoder", "autoencoder")):
        folder = tmp_path / "work/own" / part
        for damage, message in ((lambda f: f.write_bytes(b""), "cannot be loaded"), (lambda f: f.unlink(), "cannot be loaded")):
            damage(folder / "diffusion_pytorch_model.safetensors")
            with pytest.raises(InputError, match=rf"{part}: {message} .*; make it with stages=\[{stage}\]") as refused:
                train_prior.train(cfg)
            assert "\n" not in str(refused.value)
        shutil.rmtree(folder)
        with pytest.raises(InputError, match=rf"{part}: there is no network; make it with stages=\[{stage}\]"):
            train_prior.train(cfg)


@pytest.mark.program
def test_a_unet_to_start_from_must_fit(configured, trained, tiny_prior, tmp_path):
    for start_from, message in (
        ("nowhere", "there is no network"),
        (tmp_path / "work/own/autoencoder", "missing keys in the autoencoder"),
    ):
        with pytest.raises(InputError, match=message) as refused:
            train_prior.train(configured("work", "stages=[unet]", f"unet.start_from={start_from}", "unet.steps=2"))
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="takes latents of 4 channels, and autoencoder.latent_channels=3"):
        unet_stage.started_from(
            training_of(configured("other", "autoencoder.latent_channels=3", f"unet.start_from={tiny_prior}/unet"))
        )


def test_a_folder_that_is_no_prior_is_refused_before_training(configured, tmp_path):
    (tmp_path / "work/out/own").mkdir(parents=True)
    (tmp_path / "work/out/own/thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="name=own: .*out/own is there and is no finished prior; choose another name or out"):
        train_prior.train(configured("work"))
    assert contents(tmp_path) == {"work/out/own/thesis.tex": b"years of work"}


@pytest.mark.heavy
def test_flip_and_rotate_add_the_views_that_their_names_say(configured, tmp_path):
    for flip, rotate in ((False, False), (True, False), (False, True), (True, True)):
        cfg = configured("views", f"data.flip={flip}", f"data.rotate={rotate}")
        cfg.work = str(tmp_path / "views")
        (tmp_path / "views").mkdir(exist_ok=True)
        data = views.FolderImages(cfg)
        x = data.images
        expected = [x, x.flip(-1), x.flip(-1, -2), x.flip(-2)]
        wanted = [expected[0], *[expected[1]] * flip, *[expected[2]] * rotate, *[expected[3]] * (flip and rotate)]
        assert all(torch.equal(a, b) for a, b in zip(data.views(), wanted, strict=True))
        batch, allowed = data.augmented(x), torch.cat(wanted)
        seen = [(allowed == image).flatten(1).all(1).nonzero()[0, 0].item() // len(x) for image in batch]
        assert set(seen) == set(range(len(wanted))), "a batch shows every view and no other"


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data.root=nowhere"], "data.root=nowhere: folder"),
        (["data.root={empty}"], "no PNG, JPEG, TIFF, WEBP or BMP image"),
        (["data.root={images}", "data.resolution=15"], "data.resolution=15: autoencoder and UNet halve it"),
        (["data.root={images}", "stages=[faces]"], "stages=faces: choose from autoencoder, unet, export, quality"),
        (["data.root={images}", "data.held_out=1.0e-9"], "leaves 12 images for training and 0 held out"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(monkeypatch, capsys, tiny_images, tmp_path, overrides, message):
    (tmp_path / "empty").mkdir()
    filled = [override.format(empty=tmp_path / "empty", images=tiny_images) for override in overrides]
    monkeypatch.setattr(sys, "argv", ["train_prior.py", f"work={tmp_path / 'work'}", *filled])
    with pytest.raises(SystemExit) as stop:
        train_prior.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.program
def test_the_command_says_nothing_else():
    """Neither does an installed torch_xla, which diffusers imports, announce its runtime."""
    clean = {name: value for name, value in os.environ.items() if name != "PJRT_DEVICE"}
    command = [sys.executable, "tools/train_prior.py", "data.root=nowhere", "name=own"]
    done = subprocess.run(command, cwd=PROJECT, env=clean, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: data.root=nowhere: folder {PROJECT / 'nowhere'} not found\n"


@pytest.mark.parametrize("fast, autocast, used", [(True, "auto", True), (False, "auto", False), (False, "true", True)])
def test_networks_train_in_bfloat16_where_that_is_faster(configured, monkeypatch, fast, autocast, used):
    monkeypatch.setattr(networks.devices, "has_fast_bf16", lambda device: fast)
    with networks.autocast(configured("work", f"autocast={autocast}")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if used else torch.float32)


def test_an_unknown_precision_ends_in_one_line(configured):
    with pytest.raises(InputError, match="autocast=maybe: input should be 'auto', True or False"):
        train_prior.train(configured("work", "autocast=maybe"))
