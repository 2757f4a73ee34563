"""Train latent diffusion priors from nothing: the shipped ones, or one of the images in a folder.

    python tools/train_prior.py                                  # the shipped priors, every stage, one after the other
    python tools/train_prior.py stages=[faces] unet.steps=20000  # one stage; a killed run resumes where it stopped
    python tools/train_prior.py data.root=FOLDER data.resolution=64 name=own    # a prior of one's own images
    torchrun --nproc-per-node=4 tools/train_prior.py data.root=FOLDER device=cuda    # the same on four GPUs

Stages: autoencoder, faces, scenes, export (shipped: one autoencoder, one UNet per family, which may run side by side in two
processes), or autoencoder, unet, export, quality (of a folder). The results are diffusers folders (LDMPipeline layout) that the
sampler loads like any public checkpoint. A finished prior of the same name is moved aside, with its certificates.
"""

import json
import shutil
from pathlib import Path

import hydra
import torch
from diffusers import LDMPipeline, UNet2DModel
from omegaconf import DictConfig

from tools.demo_prior.autoencoder_stage import train_autoencoder
from tools.demo_prior.networks import build_scheduler, load_network
from tools.demo_prior.prior_quality import measure
from tools.demo_prior.real_images import FEWEST_SAMPLES, Folder
from tools.demo_prior.settings import Training, training_of
from tools.demo_prior.training import ALONE, after_first
from tools.demo_prior.training_images import HELD_OUT_FOLDER, HELD_OUT_LIST
from tools.demo_prior.unet_stage import load_autoencoder, train_unet
from tools.demo_prior.views import image_folder
from utils import device as devices
from utils.command_line import wrong_input_in_one_line
from utils.errors import InputError, counted
from utils.files import write_atomically, write_folder
from utils.paths import PROJECT
from utils.priors.latent_diffusion import load_pipeline
from utils.running.ranks import Rank


def export(cfg: Training) -> None:
    """Write the finished priors as pipelines: UNet stored in half precision, autoencoder in single.

    A prior of the same name that is there is moved aside with its certificates, and stays if it is the same.
    """
    for stage in cfg.unet_stages:
        pipeline = LDMPipeline(
            vqvae=load_autoencoder(cfg),
            unet=load_network(UNet2DModel, Path(cfg.work) / f"unet_{stage}", f"make it with stages=[{stage}]").half(),
            scheduler=build_scheduler(),
        )

        def fill(folder: Path) -> None:
            pipeline.save_pretrained(folder)
            if cfg.data.root:
                shutil.copyfile(Path(cfg.work) / HELD_OUT_LIST, folder / HELD_OUT_LIST)

        folder = prior_folder(cfg, stage)
        if (before := write_folder(folder, fill, keep_other=True)) is not None:
            print(f"{before}: the prior that was there before, with its certificates")
        size_mb = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
        print(f"{folder}: {size_mb:.2f} MB")


def prior_folder(cfg: Training, stage: str) -> Path:
    return Path(cfg.out) / (cfg.name if cfg.data.root else f"demo-{stage}")


def check_out(cfg: Training) -> None:
    """Raises InputError, before anything is trained, where the place of a finished prior holds something else."""
    for stage in cfg.unet_stages:
        folder = prior_folder(cfg, stage)
        if folder.exists() and not (folder / "model_index.json").is_file():
            raise InputError(f"name={cfg.name}: {folder} is there and is no finished prior; choose another name or out")


def report_quality(cfg: Training) -> None:
    """Measure the exported prior of a folder against its held-out images, as tools/prior_quality.py does."""
    images = Folder(Path(cfg.work) / HELD_OUT_FOLDER)
    count = min(500, len(images.files) // 2)
    if count < FEWEST_SAMPLES:
        held_out = counted(len(images.files), "held-out image")
        print(f"quality: not measured, there is {held_out}, and {2 * FEWEST_SAMPLES} are needed; raise data.held_out")
        return
    prior = load_pipeline(Path(cfg.out) / cfg.name, torch.device(cfg.device))
    with torch.no_grad():
        figures, _ = measure(prior, images, count)
    rows = [{"folder": f"{cfg.out}/{cfg.name}", **figures}]
    write_atomically(Path(cfg.work) / "quality.json", json.dumps(rows, indent=1) + "\n")
    print(
        f"quality: Frechet distance {figures['distance']['mean']:.2f}, floor {figures['floor']['mean']:.2f} ({count} samples); "
        f"autoencoder {figures['psnr_upright']['mean']:.2f} dB on {figures['images']} held-out images"
    )


@hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="train_prior")
def main(cfg: DictConfig) -> None:
    with wrong_input_in_one_line(), devices.out_of_memory_in_one_line("autoencoder.batch= or unet.batch="):
        train(cfg, Rank.of_this_process())


def train(config: DictConfig, rank: Rank = ALONE) -> None:
    """The configured stages, one after the other. Raises InputError."""
    cfg = training_of(config)
    devices.require(cfg.device)
    if rank.count > 1 and not cfg.data.root:
        raise InputError("torchrun trains the prior of a folder: give data.root=FOLDER")
    if "export" in (cfg.stages or cfg.all_stages):
        check_out(cfg)
    torch.set_num_threads(cfg.threads)
    torch.set_flush_denormal(True)
    if rank.count > 1:
        devices.exchange_gradients(cfg.device, rank.local)
    if cfg.data.root:
        cfg = cfg.model_copy(update={"work": str(Path(cfg.work) / cfg.name)})
        folder = image_folder(cfg)  # refuses what cannot be trained on, before anything is written
    Path(cfg.work).mkdir(parents=True, exist_ok=True)
    if cfg.data.root:
        if rank.first:
            folder.prepare()
        after_first(rank, "images prepared")
    for stage in cfg.stages or cfg.all_stages:
        if stage == "autoencoder":
            train_autoencoder(cfg, rank)
        elif stage in cfg.unet_stages:
            train_unet(cfg, stage, rank)
        elif not rank.first:
            continue
        elif stage == "export":
            export(cfg)
        else:
            report_quality(cfg)
    if rank.count > 1:
        torch.distributed.destroy_process_group()
