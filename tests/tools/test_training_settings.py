"""configs/train_prior.yaml as typed values: each wrong one ends in one line, before anything is written."""

import sys

import pytest
import torch
from hydra import compose, initialize_config_dir

from tools.demo_prior import train_prior
from tools.demo_prior.settings import training_of
from utils.command_line import run
from utils.config.compose import call
from utils.errors import InputError
from utils.paths import PROJECT


def composed(*overrides):
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        return compose("train_prior", overrides=list(overrides))


def test_the_shipped_configuration_passes():
    assert training_of(composed()).all_stages == ("autoencoder", "faces", "scenes", "export")
    assert training_of(composed("data.root=x")).all_stages == ("autoencoder", "unet", "export", "quality")


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data.flip=true"], "data.flip=True: the drawn families have False"),
        (["data.resolution=32"], "data.resolution=32: the drawn families have 64"),
        (["autoencoder.channels=[16,18]"], "autoencoder.channels=[16, 18]: use multiples of 4"),
        (["data.root=x", "data.resolution=40"], "data.resolution=40: autoencoder and UNet halve it 4 times"),
        (["data.root=x", "data.resolution=8"], "use a multiple of 16"),
        (["data.root=x", "unet.channels=[32,40]"], "unet.channels=[32, 40]: the last one has attention"),
        (["stages=[unet]"], "stages=unet: choose from autoencoder, faces, scenes, export"),
        (["autoencoder.l1_weight=0", "autoencoder.l2_weight=0", "autoencoder.gradient_weight=0"], "nothing is learnt"),
        (["~unet.rotated_fraction.faces"], "must name faces and scenes"),
        (["work=${nowhere}"], "work: "),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, message):
    with pytest.raises(InputError) as refused:
        training_of(composed(*overrides))
    assert message in str(refused.value) and "\n" not in str(refused.value)


WRONG = """
stages=faces stages=[] stages=7 seed=x seed=-1 seed=1e30 seed=null device=gpu device=cuda:7 device=null device=7
threads=0 threads=-1 threads=x threads=null threads=1000000 autocast=maybe autocast=null train_images=0
train_images=1000000000000 train_images=1.5 name=../../escaped name=a/b name=.. name=. name=.hidden name=null
work=null out=null save_every=0 save_every=null data.resolution=0 data.resolution=64.5
data.resolution=x data.held_out=0 data.held_out=1 data.held_out=nan data.held_out=x data.flip=2 data.rotate=x
autoencoder=null autoencoder.channels=[] autoencoder.channels=[0] autoencoder.channels=[-4,8] autoencoder.channels=16
autoencoder.channels=[x] autoencoder.latent_channels=0 autoencoder.layers_per_block=0 autoencoder.layers_per_block=x
autoencoder.norm_num_groups=0 autoencoder.steps=0 autoencoder.steps=-1 autoencoder.steps=x autoencoder.batch=0
autoencoder.batch=-1 autoencoder.batch=1000000000000 autoencoder.muon_lr=nan autoencoder.muon_lr=0 autoencoder.adam_lr=-1
autoencoder.adam_lr=inf autoencoder.adam_lr=1e300 autoencoder.l1_weight=-1 autoencoder.l2_weight=nan
autoencoder.gradient_weight=x autoencoder.kl_weight=inf autoencoder.ema_decay=1 autoencoder.ema_decay=-0.1
autoencoder.ema_decay=nan unet=null unet.channels=[] unet.channels=[0] unet.channels=x unet.steps=0 unet.steps=x
unet.steps=1e9 unet.batch=0 unet.lr=nan unet.lr=0 unet.lr=-1 unet.lr=x unet.warmup=0 unet.warmup=-1
unet.ema_decay=2 unet.rotated_fraction=0.5 unet.rotated_fraction.faces=2 unet.rotated_fraction.faces=nan +more=1
+unet.more=1
""".split()


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_named_in_one_line(override):
    """What training_of does not see is not refused before hours of training."""
    with pytest.raises(InputError) as refused:
        training_of(composed(override))
    key = override.partition("=")[0].lstrip("+")
    assert str(refused.value).startswith(key) and "\n" not in str(refused.value)


def test_the_command_ends_with_status_2_and_leaves_nothing(tmp_path, monkeypatch, capsys, tiny_images):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    common = (f"data.root={tiny_images}", "data.resolution=16", "autoencoder.channels=[8,8]", "unet.channels=[8,32]")
    for override in ("device=cuda", "threads=0", "name=../../escaped", "unet=null", "unet.lr=nan"):
        monkeypatch.setattr(sys, "argv", ["train_prior.py", *common, "work=a/b/c", "out=d/e/f", override])
        with pytest.raises(SystemExit) as ended:
            run(lambda: call(train_prior.main))
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.startswith(f"error: {override.partition('=')[0]}=") and error.count("\n") == 1
        assert not list(tmp_path.iterdir())
