"""The training loop that the stages of tools/train_prior.py share, and what they report with."""

import io
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch.optim.lr_scheduler import LambdaLR

from tools.demo_prior.settings import Autoencoder, Training, UNet
from tools.demo_prior.training_images import damaged
from utils.device import is_out_of_memory
from utils.errors import InputError
from utils.files import picture_format, write_atomically
from utils.metrics.pixels import to_pixels
from utils.running.ranks import Rank

ALONE = Rank()


def cosine(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up, then cosine down to 2 %."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Of the random numbers that one rank draws in one step; torch's generator on the CPU takes its low 32 bits alone."""
    return seed * 10_000_000 + step + rank * 10**14


class Trainer:
    """The loop that both stages share: schedule, EMA, progress, resumable checkpoints.

    The random numbers of step k come from a generator seeded by (seed, k) and the rank, so a resumed run repeats an
    undisturbed one. Under torchrun every rank draws its own batch, and the gradients are averaged: the batch of a step
    is `settings.batch` times the number of ranks. Rank 0 reports and saves.
    """

    def __init__(
        self,
        name: str,
        cfg: Training,
        model: torch.nn.Module,
        optimisers: Sequence[torch.optim.Optimizer],
        settings: Autoencoder | UNet,
        on_save: Callable[[torch.nn.Module], str],
        rank: Rank = ALONE,
    ) -> None:
        self.name, self.cfg, self.model, self.settings, self.on_save = name, cfg, model, settings, on_save
        self.rank = rank
        self.optimisers = optimisers
        self.averaged = torch.optim.swa_utils.AveragedModel(model, avg_fn=self._blend)
        self.path = Path(cfg.work) / f"{name}.pt"
        self.step = 0
        rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
        if self.path.exists():
            saved = self._saved()
            try:
                model.load_state_dict(saved["model"])
                self.averaged.load_state_dict(saved["averaged"])
                for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
                    optimiser.load_state_dict(state)
                for optimiser, of_groups in zip(self.optimisers, rates):
                    for group, rate in zip(optimiser.param_groups, of_groups):
                        group["initial_lr"] = rate  # the configured one: what was loaded is that of the start
            except (RuntimeError, ValueError, KeyError, TypeError):
                raise InputError(
                    f"{name}: {self.path} is of another network than the config describes; "
                    "go on with the widths it was started with, use another name or work, or remove it"
                ) from None
            self.step = saved["step"]

    def _saved(self) -> dict[str, Any]:
        """The last checkpoint. Raises InputError for a damaged one."""
        try:
            saved = torch.load(self.path, map_location=self.cfg.device, weights_only=True)
        except Exception as error:  # an empty or cut file can fail in many ways
            if isinstance(error, OSError) or is_out_of_memory(error):
                raise
            raise damaged(self.path, type(error).__name__) from None
        kinds = {"model": dict, "averaged": dict, "step": int, "optimisers": list}
        if not isinstance(saved, dict) or any(not isinstance(saved.get(key), kind) for key, kind in kinds.items()):
            raise damaged(self.path, "is no checkpoint of a training")
        return saved

    def _blend(self, averaged: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        decay = min(self.settings.ema_decay, (1 + float(count)) / (10 + float(count)))
        return averaged * decay + current * (1 - decay)

    def save(self) -> None:
        packed = io.BytesIO()  # a full disk then fails in one plain write instead of inside the archive
        torch.save(
            {
                "model": self.model.state_dict(),
                "averaged": self.averaged.state_dict(),
                "step": self.step,
                "optimisers": [o.state_dict() for o in self.optimisers],
            },
            packed,
        )
        write_atomically(self.path, packed.getbuffer())
        line = f"{self.name} step {self.step}: {self.on_save(self.averaged.module)}"
        print(line, flush=True)
        with open(Path(self.cfg.work) / f"{self.name}.log", "a", encoding="utf-8") as log:
            log.write(line + "\n")

    def run(self, loss_of: Callable[[torch.Generator], torch.Tensor]) -> torch.nn.Module:
        """Train to `settings.steps`; `loss_of(generator) -> scalar` draws its own batch."""
        factor = partial(cosine, steps=self.settings.steps, warmup=self.settings.warmup)
        # after a resume their base is the configured rate, which loaded states carry beside the decayed one
        rates = [LambdaLR(optimiser, factor, last_epoch=self.step - 1) for optimiser in self.optimisers]
        columns = (
            *Progress.get_default_columns()[:2],
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
        )
        started, mean = time.time(), float("nan")
        done = self.step >= self.settings.steps
        with Progress(*columns, disable=done or not self.rank.first) as progress:
            task = progress.add_task(self.name, total=self.settings.steps, completed=self.step, loss=mean)
            while self.step < self.settings.steps:
                generator = torch.Generator().manual_seed(step_seed(self.cfg.seed, self.step, self.rank.index))
                loss = loss_of(generator)
                if not math.isfinite(value := loss.item()):
                    raise InputError(
                        f"{self.name}: the loss is {value} in step {self.step}, the training has diverged; lower its learning "
                        f"rate, and remove {self.path} if it came near"
                    )
                self.model.zero_grad(set_to_none=True)
                loss.backward()
                if self.rank.count > 1:
                    self.average_gradients()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                for optimiser, rate in zip(self.optimisers, rates):
                    optimiser.step()
                    rate.step()
                self.averaged.update_parameters(self.model)
                self.step += 1
                mean = value if math.isnan(mean) else 0.99 * mean + 0.01 * value
                progress.update(task, advance=1, loss=mean)
                if self.rank.first and (self.step % self.cfg.save_every == 0 or self.step == self.settings.steps):
                    self.save()
        if self.rank.first:
            print(f"{self.name}: {self.step} steps, {time.time() - started:.0f} s in this process", flush=True)
        return self.averaged.module.eval().requires_grad_(False)

    def average_gradients(self) -> None:
        """Over the ranks, in one exchange."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        parts = flat.div_(self.rank.count).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))


def after_first(rank: Rank, event: str) -> None:
    """Go on once rank 0 is here too."""
    rank.announce(event)
    if rank.count > 1:
        rank.wait_for_first(event)


def save_sheet(images: torch.Tensor, path: str | Path, columns: int = 10) -> None:
    """Save (N, 3, H, W) images in [-1, 1] as one picture, twice their size."""
    pixels = to_pixels(images)  # (N, H, W, 3)
    rows = [np.concatenate(list(pixels[i : i + columns]), axis=1) for i in range(0, len(pixels) - columns + 1, columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet = sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST)
    write_atomically(path, lambda file: sheet.save(file, format=picture_format(path)))
