"""Train latent diffusion priors from nothing: the shipped ones, or one of the images in a folder.

    python tools/train_prior.py                                  # the shipped priors, every stage, one after the other
    python tools/train_prior.py stages=[faces] unet.steps=20000  # one stage; a killed run resumes where it stopped
    python tools/train_prior.py data.root=FOLDER data.resolution=64 name=own    # a prior of one's own images
    torchrun --nproc-per-node=4 tools/train_prior.py data.root=FOLDER device=cuda    # the same on four GPUs

Stages: autoencoder, faces, scenes, export (shipped: one autoencoder, one UNet per family, which may run side by side in two
processes), or autoencoder, unet, export, quality (of a folder). The results are diffusers folders (LDMPipeline layout) that the
sampler loads like any public checkpoint.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import hydra
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DModel

from tools.demo_prior.make_demo_data import FAMILIES, SEEDS, demo_images
from tools.demo_prior.muon import Muon
from tools.demo_prior.prior_quality import FEWEST_SAMPLES, measure
from tools.demo_prior.real_images import Folder
from tools.demo_prior.training import ALONE, Trainer, psnr, save_sheet
from tools.demo_prior.training_images import (
    HEAD_DIM,
    HELD_OUT_FOLDER,
    HELD_OUT_LIST,
    ImageFolder,
    check_data,
    drawn_images,
    kept,
)
from utils import device as devices
from utils.command_line import run
from utils.config.compose import call
from utils.errors import InputError
from utils.paths import PROJECT
from utils.priors.latent_diffusion import load_pipeline
from utils.running.ranks import Rank

LOADING = {"low_cpu_mem_usage": False}  # the low-memory way needs a package that nothing else here needs


def to_model(images):
    """uint8 -> float in [-1, 1]."""
    return images.float() / 127.5 - 1


def rotated(images):
    return torch.flip(images, (-1, -2))


def build_autoencoder(cfg):
    settings = cfg.autoencoder
    blocks = len(settings.channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=settings.latent_channels,
        sample_size=cfg.data.resolution,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=settings.norm_num_groups,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def build_unet(cfg):
    settings, channels = cfg.unet, cfg.autoencoder.latent_channels
    blocks = len(settings.channels)
    return UNet2DModel(
        sample_size=cfg.data.resolution // 2 ** (len(cfg.autoencoder.channels) - 1),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownBlock2D",) * (blocks - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (blocks - 1),
        attention_head_dim=HEAD_DIM,
        norm_num_groups=settings.norm_num_groups,
    )


def build_scheduler():
    """The noise schedule of the public LDM checkpoints; the network predicts v."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.0015,
        beta_end=0.0195,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
    )


def start_residual_branches_at_zero(model):
    for name, parameter in model.named_parameters():
        if "conv2." in name or "to_out." in name:
            torch.nn.init.zeros_(parameter)


def gradient_distance(a, b):
    """Mean absolute difference of image gradients on three scales."""
    total = 0.0
    for scale in range(3):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        for dim in (-1, -2):
            total = total + (a.diff(dim=dim) - b.diff(dim=dim)).abs().mean()
    return total


def autocast(cfg):
    """The context in which networks run while they train."""
    enabled = devices.has_fast_bf16(cfg.device) if cfg.autocast == "auto" else cfg.autocast
    return torch.autocast(cfg.device, dtype=torch.bfloat16, enabled=enabled)


class DrawnFamilies:
    """What the shipped autoencoder is trained on: every family, half of each batch rotated."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.images = torch.cat([torch.from_numpy(drawn_images(f, cfg.train_images, cfg.work)) for f in FAMILIES])
        drawn = np.concatenate([demo_images(f, SEEDS["val"], 32) for f in FAMILIES])
        self.held_out = torch.from_numpy(drawn).permute(0, 3, 1, 2)
        self.groups = {"faces": slice(0, 32), "scenes": slice(32, None)}  # of held_out

    def augmented(self, batch):
        half = len(batch) // 2
        return torch.cat([batch[:half], rotated(batch[half:])])

    def typical(self):
        """Images in [-1, 1] over which the latents are standardised."""
        images = to_model(torch.cat([self.images[:1500], self.images[-1500:]]))
        return torch.cat([images[::2], rotated(images[1::2])])


class FolderImages:
    """What the prior of a folder is trained on: its images, also mirrored with data.flip, also rotated with data.rotate."""

    def __init__(self, cfg):
        folder = image_folder(cfg)
        self.flip, self.rotate = cfg.data.flip, cfg.data.rotate
        self.images = torch.from_numpy(folder.training_images())
        self.held_out = torch.from_numpy(folder.watched_images())
        self.groups = {"held-out": slice(None)}

    def augmented(self, batch):
        """Half of them rotated, every second one mirrored: each image meets every view over the epochs."""
        half = len(batch) // 2
        batch = torch.cat([batch[:half], rotated(batch[half:])]) if self.rotate else batch
        return torch.cat([batch[::2], batch[1::2].flip(-1)]) if self.flip else batch

    def typical(self):
        """Images in [-1, 1] over which the latents are standardised."""
        evenly = torch.linspace(0, len(self.images) - 1, min(3000, len(self.images))).long()
        return self.augmented(to_model(self.images[evenly]))

    def views(self):
        """The training images in each view that the prior is to find plausible, (N, 3, H, W) uint8 each."""
        for turn in (False, True)[: 1 + self.rotate]:
            for mirror in (False, True)[: 1 + self.flip]:
                images = rotated(self.images) if turn else self.images
                yield images.flip(-1) if mirror else images


def image_folder(cfg):
    return ImageFolder(cfg.data.root, cfg.data.resolution, cfg.data.held_out, cfg.work)


def train_autoencoder(cfg, rank):
    settings, device = cfg.autoencoder, cfg.device
    torch.manual_seed(cfg.seed)
    data = FolderImages(cfg) if cfg.data.root else DrawnFamilies(cfg)
    images, held_out = data.images, to_model(data.held_out).to(device)
    model = build_autoencoder(cfg).to(device)
    start_residual_branches_at_zero(model)
    # Muon on the inner convolutions; Adam on the layers that touch pixels or latents, on norms and biases
    outer = ("conv_in", "conv_out", "quant_conv")
    inner = [p for n, p in model.named_parameters() if p.ndim >= 2 and not any(k in n for k in outer)]
    inner_ids = {id(p) for p in inner}
    optimisers = [
        Muon(inner, settings.muon_lr),
        torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in inner_ids], lr=settings.adam_lr, betas=(0.9, 0.99), weight_decay=1e-4
        ),
    ]

    def loss_of(generator):
        batch = to_model(images[torch.randint(len(images), (settings.batch,), generator=generator)])
        x = data.augmented(batch).to(device)
        with autocast(cfg):
            posterior = model.encode(x).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator).to(device)
            y = model.decode(mean + noise * (logvar / 2).exp()).sample
        y = y.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (
            settings.l1_weight * (y - x).abs().mean()
            + settings.l2_weight * (y - x).square().mean()
            + settings.gradient_weight * gradient_distance(y, x)
            + settings.kl_weight * kl
        )

    @torch.no_grad()
    def on_save(averaged):
        words = []
        for label, x in (("upright", held_out), ("rotated", rotated(held_out))):
            y = averaged.decode(averaged.encode(x).latent_dist.mean).sample
            values = psnr(y, x)
            means = [f"{name} {values[group].mean():.2f}" for name, group in data.groups.items()]
            words.append(f"{label} {' '.join(means)} min {values.min():.2f} dB")
        pairs = [part[group][:10] for group in data.groups.values() for part in (held_out, rotated(y))]
        save_sheet(torch.cat(pairs), Path(cfg.work) / "autoencoder.png", columns=min(10, len(held_out)))
        return ", ".join(words)

    model = Trainer("autoencoder", cfg, model, optimisers, settings, on_save, rank).run(loss_of)
    standardise_latents(model, data.typical().to(device))
    if rank.first:
        model.cpu().save_pretrained(Path(cfg.work) / "autoencoder")
    after_first(rank, "autoencoder saved")


@torch.no_grad()
def standardise_latents(model, images):
    """Fold a per-channel affine map into the 1x1 quant convolutions: latents get zero mean and unit variance,
    so that scaling_factor is 1."""
    latents = torch.cat([model.encode(chunk).latent_dist.mean for chunk in images.split(250)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode, c = model.quant_conv, model.post_quant_conv, model.config.latent_channels
    decode.bias += (decode.weight[:, :, 0, 0] * mean).sum(1)
    decode.weight *= std.view(1, -1, 1, 1)
    encode.weight[:c] /= std.view(-1, 1, 1, 1)
    encode.bias[:c] = (encode.bias[:c] - mean) / std
    encode.bias[c:] -= 2 * std.log()  # the second half of the channels is the log-variance


@torch.no_grad()
def latent_moments(autoencoder, images, rotated_fraction, cfg):
    """Mean and standard deviation of every image's latent, two (N, C, h, w) tensors; the last images are rotated."""
    turned = round(rotated_fraction * len(images))
    means, stds = [], []
    for start in range(0, len(images), 250):
        chunk = images[start : start + 250]
        keep = torch.arange(start, start + len(chunk)) < len(images) - turned
        x = to_model(torch.where(keep[:, None, None, None], chunk, rotated(chunk))).to(cfg.device)
        with autocast(cfg):
            posterior = autoencoder.encode(x).latent_dist
        means.append(posterior.mean.float())
        stds.append(posterior.std.float())
    return torch.cat(means), torch.cat(stds)


def latents_of_family(cfg, autoencoder, family):
    images = torch.from_numpy(drawn_images(family, cfg.train_images, cfg.work))
    return latent_moments(autoencoder, images, cfg.unet.rotated_fraction[family], cfg)


def latents_of_folder(cfg, autoencoder):
    """As latent_moments, of every view of every image; half precision, for there may be many. Kept in `work`."""

    def encoded():
        moments = [latent_moments(autoencoder, images, 0.0, cfg) for images in FolderImages(cfg).views()]
        return np.stack([torch.cat([part.half() for part in parts]).cpu().numpy() for parts in zip(*moments)])

    weights = b"".join(parameter.cpu().numpy().tobytes() for parameter in autoencoder.parameters())
    name = f"latents_{hashlib.sha256(weights).hexdigest()[:12]}_{'flip' * cfg.data.flip}{'rotate' * cfg.data.rotate}.npy"
    return torch.from_numpy(kept(Path(cfg.work) / name, encoded)).to(cfg.device)  # (2, N, C, h, w)


def train_unet(cfg, family, rank):
    settings, device = cfg.unet, cfg.device
    torch.manual_seed(cfg.seed)
    autoencoder = (
        AutoencoderKL.from_pretrained(Path(cfg.work) / "autoencoder", **LOADING).eval().requires_grad_(False).to(device)
    )
    if not rank.first:  # rank 0 writes them, the others read them
        after_first(rank, "latents kept")
    means, stds = latents_of_folder(cfg, autoencoder) if cfg.data.root else latents_of_family(cfg, autoencoder, family)
    if rank.first:
        rank.announce("latents kept")
    scheduler = build_scheduler()
    signal = scheduler.alphas_cumprod.sqrt().to(device)
    noise_level = (1 - scheduler.alphas_cumprod).sqrt().to(device)
    if settings.start_from:
        model = UNet2DModel.from_pretrained(Path(settings.start_from), **LOADING).float().train().to(device)
    else:
        model = build_unet(cfg).to(device)
        start_residual_branches_at_zero(model)
        torch.nn.init.zeros_(model.conv_out.weight)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=1e-3)

    def loss_of(generator):
        index = torch.randint(len(means), (settings.batch,), generator=generator)
        shape = (settings.batch, *means.shape[1:])
        z0 = means[index] + stds[index] * torch.randn(shape, generator=generator).to(device)
        noise = torch.randn(shape, generator=generator).to(device)
        # one timestep from each of `batch` equal intervals: less variance than independent draws
        u = (torch.arange(settings.batch) + torch.rand(1, generator=generator)) / settings.batch
        t = (u * 1000).long().clamp(max=999).to(device)
        a, s = signal[t].view(-1, 1, 1, 1), noise_level[t].view(-1, 1, 1, 1)
        with autocast(cfg):
            v = model(a * z0 + s * noise, t).sample
        return (v.float() - (a * noise - s * z0)).square().mean()

    @torch.no_grad()
    def on_save(averaged):
        generator = torch.Generator().manual_seed(1)
        z = torch.randn(20, *means.shape[1:], generator=generator).to(device)
        scheduler.set_timesteps(30)
        for t in scheduler.timesteps:
            z = scheduler.step(averaged(z, t).sample, t, z).prev_sample
        save_sheet(autoencoder.decode(z).sample, Path(cfg.work) / f"{family}.png")
        return f"latent std of 20 samples {z.std():.3f}"

    model = Trainer(family, cfg, model, [optimiser], settings, on_save, rank).run(loss_of)
    if rank.first:
        model.cpu().save_pretrained(Path(cfg.work) / f"unet_{family}")


def export(cfg):
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


def report_quality(cfg):
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


def after_first(rank, event):
    """Go on once rank 0 is here too."""
    rank.announce(event)
    if rank.count > 1:
        rank.wait_for_first(event)


def unet_stages(cfg):
    return ("unet",) if cfg.data.root else FAMILIES


@hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="train_prior")
def main(cfg):
    try:
        train(cfg, Rank.of_this_process())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def train(cfg, rank=ALONE):
    """The configured stages, one after the other. Raises InputError."""
    torch.set_num_threads(cfg.threads)
    torch.set_flush_denormal(True)
    known = ("autoencoder", *unet_stages(cfg), "export", *(("quality",) if cfg.data.root else ()))
    stages = known if cfg.stages is None else cfg.stages
    if unknown := [stage for stage in stages if stage not in known]:
        raise InputError(f"stages={unknown[0]}: choose from {', '.join(known)}")
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
