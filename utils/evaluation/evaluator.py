"""From one image's particles to its record."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from operators.base import Operator
from utils.data import TestItem
from utils.evaluation import aligned, certificate
from utils.evaluation.scores import (
    PICK_RULES,
    Lpips,
    LpipsAlex,
    gradient_error,
    mode_labels,
    pick,
    psnr,
    r_factor,
    rotated,
    ssim,
    to_unit,
)
from utils.evaluation.trace import Trace
from utils.records.aggregate import SCORES
from utils.sampling.handicap import owed
from utils.sampling.mechanism import Mechanism
from utils.sampling.outcome import SampleResult
from utils.sampling.profiler import Profiler
from utils.sampling.rounds import Verdict
from utils.sampling.schedule import StepClock


class Success(Protocol):
    """What counts as a success: PSNR of an orientation, and by how much it beats the other one."""

    threshold_db: float
    margin_db: float


class Evaluator:
    """Scores images and builds their records.

    operator: to know whether the task has the rotation ambiguity; success: threshold_db and margin_db of the labels;
    particles: the numbers of every image's particles, children included; clock: the timesteps of the trace; mechanisms:
    those of the sampler, whose reports become blocks of the record; rule: of the label-free pick, a key of
    scores.PICK_RULES; thresholds: of a sequential population's certificate.
    """

    def __init__(
        self,
        operator: Operator,
        success: Success,
        particles: range,
        clock: StepClock,
        mechanisms: Sequence[Mechanism] = (),
        rule: str = "loss",
        thresholds: certificate.Thresholds | None = None,
    ) -> None:
        self.thresholds = thresholds
        self.operator, self.success, self.particles = operator, success, particles
        self.clock, self.mechanisms, self.rule = clock, mechanisms, rule
        self.lpips, self.lpips_alex = Lpips(), LpipsAlex()

    def record(
        self,
        image: TestItem,
        truth: torch.Tensor | None,
        result: SampleResult,
        trace: Trace,
        profiler: Profiler,
        batch_images: int,
        history: Sequence[Verdict] = (),
    ) -> tuple[dict, dict]:
        """(record, arrays) of one image of a batch.

        history: the certificate's verdicts of a sequential population; the pick is then one of those that pass, if any does.

        truth: (3, H, W) on the CPU, None for a measurement; result, trace, profiler: of the whole batch.
        Lists per particle follow `particles`; one that is not there at the end is None.
        """
        where = result.particles.of_image(image.id)
        on_device = where.to(result.image.device)
        mine = result.particles.select(where)
        x, z, y, survivors = result.image[on_device].float().cpu(), mine.z.cpu(), mine.y[:1], mine.index.tolist()
        # finite latents can have a loss beyond float32, or decode to nothing finite
        ok = [all(bool(torch.isfinite(t).all()) for t in each) for each in zip(z, x, result.loss[on_device].cpu())]

        def place(values):
            """Values of the survivors -> one per number; None where pruned, replaced, never born or diverged."""
            known = {index: value for index, value, fine in zip(survivors, values, ok) if fine}
            return [known.get(index) for index in self.particles]

        loss = place(result.loss[on_device].tolist())
        scores = self._scores(x, truth, place)
        modes = self._modes(x, truth, place)
        free = self._free(result.image[on_device], mine.free, place)
        judged = free["loss"] if free and self.rule == "free_loss" else loss
        passing = place(history[-1].passing) if history else []
        if any(passing):
            judged = [value if ok else None for value, ok in zip(judged, passing)]
        picked = self._pick(judged, result.image[on_device], mine.y, place)
        measured = y.double().cpu()
        floor = self.operator.noise_floor(measured).item()
        said = ((m.name, m.block(result.of_image(m.name, image.id), self.particles)) for m in self.mechanisms)
        blocks = {name: block for name, block in said if block is not None}
        summary, drawn = self._summary(x, truth, ok, survivors, picked, place)
        record = {
            "image_id": image.id,
            "file": image.path.name,
            "sha256": image.sha256(),
            "particles": list(self.particles),
            "survivors": survivors,
            "scores": scores,
            "modes": modes,
            "loss": loss,
            "noise_floor": floor,
            "floor_std": floor * self.operator.floor_spread(measured).item(),
            **self._terms(x.to(result.image.device), mine.y, place),
            "r_factor": place(self._r_factor(result.image[on_device], mine.y)),
            **({"free": free} if free else {}),
            "selection": {
                "picked": picked,
                "psnr": scores["psnr"][picked] if picked is not None else None,
                "psnr_aligned": modes["psnr_aligned"][picked] if modes and picked is not None else None,
                "rule": PICK_RULES[self.rule] + (" of those that pass the certificate" if history else ""),
            },
            "trace": {
                "timestep": [self.clock.timestep(i) for i in range(self.clock.num_steps)],
                **trace.of_image(image.id, self.particles),
            },
            "pruning": blocks.pop("pruning", None),
            "optimization": blocks.pop("optimization", None),
            **({"tree": blocks.pop("tree")} if "tree" in blocks else {}),
            **({"recombination": blocks.pop("recombination")} if "recombination" in blocks else {}),
            **({"mechanisms": blocks} if blocks else {}),
            **({"population": certificate.block(history, survivors, self.particles, self.thresholds)} if history else {}),
            **({"summary": summary} if summary else {}),
            "time": _time(profiler, batch_images),
            "diverged": [not dict(zip(survivors, ok)).get(index, True) for index in self.particles],
        }
        if mine.free is not None:  # what was measured, however it was used
            y = torch.where(torch.isnan(y), mine.free[:1], y)
        arrays = {"y": y[0].cpu().numpy(), "z": z.numpy(), "images": to_pixels(x), **drawn}
        return record, arrays if truth is None else {**arrays, "truth": to_pixels(truth[None])[0]}

    def _terms(self, x, y, place):
        """What the loss is made of, where that is more than one thing."""
        found = self.operator.components(x, y)
        if not found:
            return {}
        floors = self.operator.floor_components(y[:1].double().cpu())
        terms = {name: {"loss": place(v.tolist()), "noise_floor": floors[name].item()} for name, v in found.items()}
        return {"loss_terms": terms}

    def _scores(self, x, truth, place):
        if truth is None:
            return {name: [None] * len(self.particles) for name in SCORES}
        scores = {
            "psnr": place(psnr(x, truth).tolist()),
            "ssim": place(ssim(x, truth).tolist()),
            "lpips": place(self.lpips(x, truth)),
            "gradient_error": place(gradient_error(x, truth).tolist()),
        }
        alex = self.lpips_alex(x, truth)
        return scores if alex is None else {**scores, "lpips_alex": place(alex)}

    def _modes(self, x, truth, place):
        if truth is None or not self.operator.rotation_ambiguity:
            return None
        modes = mode_labels(x, truth, self.success.threshold_db, self.success.margin_db)
        modes = {name: place(values) for name, values in modes.items()}
        return {**modes, "psnr_rotated_truth": psnr(rotated(truth)[None], truth).item()}

    def _free(self, x, free, place):
        """Loss of the particles on the measurements kept out of the fit, beside its own floor; None without any."""
        if free is None:
            return None
        return {
            "loss": place(self.operator.loss(x, free).tolist()),
            "noise_floor": self.operator.noise_floor(free[:1].double().cpu()).item(),
            "r_factor": place(self._r_factor(x, free)),
        }

    def _pick(self, loss, x, y, place):
        """The particle of the lowest loss, in which a fitted exposure is a handicap."""
        more = owed(self.operator, x, y, torch.ones(len(x), len(x), dtype=torch.bool, device=x.device))
        if more is None:
            return pick(loss)
        return pick([None if v is None else v + extra for v, extra in zip(loss, place(more.tolist()))])

    def _r_factor(self, x, y):
        return r_factor(self.operator(x), y, getattr(self.operator, "free_scale", False)).tolist()

    def _summary(self, x, truth, ok, survivors, picked, place):
        """(block of the record, its arrays) of what the particles say together; empty for one particle alone."""
        fine = [i for i, each in enumerate(ok) if each]
        if picked is None or len(fine) < 2:
            return {}, {}
        at = [survivors[i] for i in fine].index(self.particles[picked])
        found = aligned.summarise(to_unit(x[fine]), at, aligned.symmetry(self.operator))
        agreeing = iter(found.agreeing)
        block = {
            "agreeing": place([next(agreeing) if each else None for each in ok]),
            "psnr": self._psnr_of(found.mean, truth),
            "resolution": found.resolution,
        }
        spread = {} if found.std is None else {"summary_std": found.std.half().numpy(), "summary_prtf": found.prtf.numpy()}
        return block, {"summary_mean": to_pixels(2 * found.mean[None] - 1)[0], **spread}

    def _psnr_of(self, mean, truth):
        """PSNR of one image (C, H, W) in [0, 1], in the better orientation where the task has two; None without a truth."""
        if truth is None:
            return None
        truths = torch.stack([truth, rotated(truth)] if self.operator.rotation_ambiguity else [truth])
        return psnr(2 * mean[None] - 1, truths).max().item()


def _time(profiler: Profiler, batch_images: int) -> dict:
    """A batch's time is divided by its images; network calls are per particle already."""
    phases = profiler.as_dict()
    for phase in phases.values():
        phase["time_s"] /= batch_images
    return {
        "image_s": sum(p["time_s"] for p in phases.values()),
        "compile_s": profiler.compile_s / batch_images if profiler.compile_s is not None else None,
        "step_s": [s / batch_images for s in profiler.step_s],
        "phases": phases,
    }


def to_pixels(x: torch.Tensor) -> np.ndarray:
    """Images (P, 3, H, W) in [-1, 1] -> (P, H, W, 3) uint8 array."""
    array = np.nan_to_num(x.detach().float().cpu().numpy(), nan=-1.0, posinf=1.0, neginf=-1.0)
    return np.round((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
