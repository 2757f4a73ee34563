"""Train latent diffusion priors from nothing: the shipped ones, or one of the images in a folder.

    python tools/train_prior.py                                  # the shipped priors, every stage, one after the other
    python tools/train_prior.py stages=[faces] unet.steps=20000  # one stage; a killed run resumes where it stopped
    python tools/train_prior.py data.root=FOLDER data.resolution=64 name=own    # a prior of one's own images
    torchrun --nproc-per-node=4 tools/train_prior.py data.root=FOLDER device=cuda    # the same on four GPUs

Stages: autoencoder, faces, scenes, export (shipped: one autoencoder, one UNet per family, which may run side by side in two
processes), or autoencoder, unet, export, quality (of a folder). The results are diffusers folders (LDMPipeline layout) that the
sampler loads like any public checkpoint.
"""

import json
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

import hydra
import torch
from diffusers import AutoencoderKL, LDMPipeline, UNet2DModel
from omegaconf import DictConfig

from tools.demo_prior.autoencoder_stage import train_autoencoder
from tools.demo_prior.make_demo_data import FAMILIES
from tools.demo_prior.networks import LOADING, build_scheduler
from tools.demo_prior.prior_quality import measure
from tools.demo_prior.real_images import FEWEST_SAMPLES, Folder
from tools.demo_prior.training import ALONE, after_first
from tools.demo_prior.training_images import HELD_OUT_FOLDER, HELD_OUT_LIST, check_data
from tools.demo_prior.unet_stage import train_unet
from tools.demo_prior.views import image_folder
from utils import device as devices
from utils.command_line import run
from utils.config.compose import call
from utils.errors import InputError
from utils.paths import PROJECT
from utils.priors.latent_diffusion import load_pipeline
from utils.running.ranks import Rank


def export(cfg: DictConfig) -> None:
    """Write the finished priors as pipelines: UNet stored in half precision, autoencoder in single."""
    for stage in unet_stages(cfg):
        pipeline = LDMPipeline(
            vqvae=AutoencoderKL.from_pretrained(Path(cfg.work) / "autoencoder", **LOADING),
            unet=UNet2DModel.from_pretrained(Path(cfg.work) / f"unet_{stage}", **LOADING).half(),
            scheduler=build_scheduler(),
        )
        folder = Path(cfg.out) / (cfg.name if cfg.data.root else f"demo-{stage}")
        pipeline.save_pretrained(folder)
        if cfg.data.root:
            shutil.copyfile(Path(cfg.work) / HELD_OUT_LIST, folder / HELD_OUT_LIST)
        size_mb = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
        print(f"{folder}: {size_mb:.2f} MB")


def report_quality(cfg: DictConfig) -> None:
    """Measure the exported prior of a folder against its held-out images, as tools/prior_quality.py does."""
    images = Folder(Path(cfg.work) / HELD_OUT_FOLDER)
    count = min(500, len(images.files) // 2)
    if count < FEWEST_SAMPLES:
        print(f"quality: not measured, {len(images.files)} images are held out and {2 * FEWEST_SAMPLES} are needed")
        return
    prior = load_pipeline(Path(cfg.out) / cfg.name, torch.device(cfg.device))
    with torch.no_grad():
        figures, _ = measure(prior, images, count)
    (Path(cfg.work) / "quality.json").write_text(json.dumps([{"folder": f"{cfg.out}/{cfg.name}", **figures}], indent=1) + "\n")
    print(
        f"quality: Frechet distance {figures['distance']['mean']:.2f}, floor {figures['floor']['mean']:.2f} ({count} samples); "
        f"autoencoder {figures['psnr_upright']['mean']:.2f} dB on {figures['images']} held-out images"
    )


def unet_stages(cfg: DictConfig) -> Collection[str]:
    return ("unet",) if cfg.data.root else FAMILIES


@hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="train_prior")
def main(cfg: DictConfig) -> None:
    try:
        train(cfg, Rank.of_this_process())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def train(cfg: DictConfig, rank: Rank = ALONE) -> None:
    """The configured stages, one after the other. Raises InputError."""
    torch.set_num_threads(cfg.threads)
    torch.set_flush_denormal(True)
    all_stages = ("autoencoder", *unet_stages(cfg), "export", *(("quality",) if cfg.data.root else ()))
    stages = all_stages if cfg.stages is None else cfg.stages
    if unknown := [stage for stage in stages if stage not in all_stages]:
        raise InputError(f"stages={unknown[0]}: choose from {', '.join(all_stages)}")
    if cfg.autocast not in ("auto", True, False):
        raise InputError(f"autocast={cfg.autocast}: choose auto, true or false")
    check_data(cfg)
    if rank.count > 1:
        if not cfg.data.root:
            raise InputError("torchrun trains the prior of a folder: give data.root=FOLDER")
        devices.exchange_gradients(cfg.device, rank)
    if cfg.data.root:
        cfg.work = str(Path(cfg.work) / cfg.name)
    Path(cfg.work).mkdir(parents=True, exist_ok=True)
    if cfg.data.root:
        if rank.first:
            image_folder(cfg).prepare()
        after_first(rank, "images prepared")
    for stage in stages:
        if stage == "autoencoder":
            train_autoencoder(cfg, rank)
        elif stage in unet_stages(cfg):
            train_unet(cfg, stage, rank)
        elif rank.first:
            (export if stage == "export" else report_quality)(cfg)
    if rank.count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(lambda: call(main))
