"""From one image's particles to its record."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from operators.base import Operator
from utils.data import TestItem
from utils.evaluation import aligned, unexplained
from utils.evaluation.scores import PICK_RULE, mode_labels, pick, rotated
from utils.evaluation.trace import Trace
from utils.mechanisms import registry
from utils.metrics.base import Metric, numbers
from utils.metrics.pixels import to_pixels, to_unit
from utils.metrics.psnr import psnr
from utils.metrics.registry import computed
from utils.noise import KeyedNoise
from utils.population import certificate
from utils.population.rounds import Verdict
from utils.sampling.handicap import owed
from utils.sampling.mechanism import Mechanism
from utils.sampling.outcome import SampleResult
from utils.sampling.pictures import enlarged
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock

Place = Callable[[Sequence[Any]], list]  # values of the survivors -> one per number


class Success(Protocol):
    """What counts as a success: PSNR of an orientation, and by how much it beats the other one."""

    threshold_db: float
    margin_db: float


class Evaluator:
    """Scores images and builds their records.

    operator: to know whether the task has the rotation ambiguity; success: threshold_db and margin_db of the labels;
    particles: the numbers of every image's particles, those born later included; clock: the timesteps of the trace; mechanisms:
    those of the sampler, whose reports become blocks of the record; thresholds: of a sequential population's certificate;
    metrics: those of one's own, beside ours; side: of the object, to which pictures of a coarse level are scaled up, None: as
    they are; decoder: of squared residuals, what the prior's decoder leaves (utils/records/decoder_floor.py), None: not known;
    noise: of the run, to draw the measurement of a result anew.

    Where the measurement is of the grey, pictures are grey and everything is judged by it.
    """

    def __init__(
        self,
        operator: Operator,
        success: Success,
        particles: range,
        clock: StepClock,
        mechanisms: Sequence[Mechanism] = (),
        thresholds: certificate.Thresholds | None = None,
        metrics: Sequence[Metric] = (),
        side: int | None = None,
        decoder: float | None = None,
        noise: KeyedNoise | None = None,
    ) -> None:
        self.thresholds, self.side, self.decoder, self.noise = thresholds, side, decoder, noise
        self.operator, self.success, self.particles = operator, success, particles
        self.clock, self.mechanisms = clock, mechanisms
        self.own_metrics, self.metrics = metrics, (*computed(), *metrics)

    def record(
        self,
        image: TestItem,
        truth: torch.Tensor | None,
        result: SampleResult,
        trace: Trace,
        profiler: Profiler,
        history: Sequence[Verdict] = (),
    ) -> tuple[dict, dict]:
        """(record, arrays) of one image of a batch.

        history: the certificate's verdicts of a sequential population; the pick is then one of those that pass, if any does.

        truth: (3, H, W) on the CPU, None for a measurement; result, trace: of the whole batch; profiler: the image's share.
        Lists per particle follow `particles`; one that is not there at the end is None.
        """
        rows = result.particles.of_image(image.id)
        on_device = rows.to(result.image.device)
        of_image = result.particles.select(rows)
        x, z, y, survivors = result.image[on_device].float().cpu(), of_image.z.cpu(), of_image.y[:1], of_image.index.tolist()
        resolution = x.shape[-1]
        x = self.operator.visible(enlarged(x, self.side or resolution))
        truth = None if truth is None else self.operator.visible(truth[None])[0]
        # finite latents can have a loss beyond float32, or decode to nothing finite
        ok = [all(bool(torch.isfinite(t).all()) for t in each) for each in zip(z, x, result.loss[on_device].cpu())]

        diverged = {index for index, fine in zip(survivors, ok) if not fine}

        def place(values: Sequence[Any]) -> list:
            """Values of the survivors -> one per number; None where pruned, replaced, never born or diverged."""
            value_of = {index: value for index, value, fine in zip(survivors, values, ok) if fine}
            return [value_of.get(index) for index in self.particles]

        loss = place(result.loss[on_device].tolist())
        scores, beside_loss = self._scores(x, truth, result.image[on_device], of_image.y, place)
        modes = self._modes(x, truth, place)
        passing = place(history[-1].passing) if history else []
        judged = [value if passes else None for value, passes in zip(loss, passing)] if any(passing) else loss
        picked = self._pick(judged, result.image[on_device], of_image.y, place)
        measured = y.double().cpu()
        floor = self.operator.noise_floor(measured).item()
        all_blocks = {m.name: m.block(result.of_image(m.name, image.id), self.particles) for m in self.mechanisms}
        blocks = {name: block for name, block in all_blocks.items() if block is not None}
        of_ones_own = {name: block for name, block in blocks.items() if name not in registry.NAMES}
        summary, drawn = self._summary(x, truth, ok, survivors, picked, place)
        measured_again: dict[str, Any] = {}
        if picked is not None:
            pick = result.image[on_device][survivors.index(self.particles[picked])][None]
            if self.decoder is not None:
                measured_again["decoder_floor"] = unexplained.decoder_floor(self.operator, pick, y, self.decoder)
            if truth is None and self.noise is not None:
                measured_again |= unexplained.of_measurement(self.operator, pick, y, self.noise, image.id)
                drawn["calculated"] = self.operator(pick)[0].float().cpu().numpy()
        phases = profiler.as_dict()
        record = {
            "image_id": image.id,
            "file": image.name,
            "sha256": image.sha256,
            "particles": list(self.particles),
            "survivors": survivors,
            "scores": scores,
            "modes": modes,
            "loss": loss,
            "noise_floor": floor,
            "floor_std": floor * self.operator.floor_spread(measured).item(),
            **self._terms(result.image[on_device], of_image.y, place),
            **beside_loss,
            **measured_again,
            "selection": {
                "picked": picked,
                "psnr": scores["psnr"][picked] if picked is not None else None,
                "psnr_aligned": modes["psnr_aligned"][picked] if modes and picked is not None else None,
                "rule": PICK_RULE + (" of those that pass the certificate" if history else ""),
            },
            "trace": {
                "timestep": [self.clock.timestep(i) for i in range(self.clock.num_steps)],
                **trace.of_image(image.id, self.particles),
            },
            **registry.recorded(blocks),
            **({"mechanisms": of_ones_own} if of_ones_own else {}),
            **self._population(history, survivors),
            **({"summary": summary} if summary else {}),
            **({"metrics": {m.name: m.about() for m in self.own_metrics}} if self.own_metrics else {}),
            "time": {  # network calls are per particle
                "image_s": sum(phase["time_s"] for phase in phases.values()),
                "compile_s": profiler.compile_s,
                "step_s": list(profiler.step_s),
                "phases": phases,
            },
            **({"resolved": {"pixels": resolution, "of": self.side}} if self.side not in (None, resolution) else {}),
            "diverged": [index in diverged for index in self.particles],
        }
        arrays = {"y": y[0].cpu().numpy(), "z": z.numpy(), "images": to_pixels(x), **drawn}
        return record, arrays if truth is None else {**arrays, "truth": to_pixels(truth[None])[0]}

    def _terms(self, x: torch.Tensor, y: torch.Tensor, place: Place) -> dict[str, Any]:
        """What the loss is made of, where that is more than one thing."""
        if not (losses := self.operator.components(x, y)):
            return {}
        floors = self.operator.floor_components(y[:1].double().cpu())
        terms = {name: {"loss": place(v.tolist()), "noise_floor": floors[name].item()} for name, v in losses.items()}
        return {"loss_terms": terms}

    def _scores(
        self, x: torch.Tensor, truth: torch.Tensor | None, image: torch.Tensor, y: torch.Tensor, place: Place
    ) -> tuple[dict[str, list], dict[str, list]]:
        """({name: values} of the block `scores`, the same of what stands beside the loss); image: x, where y is."""
        scores: dict[str, list] = {}
        beside_loss: dict[str, list] = {}
        for metric in self.metrics:
            if metric.of == "measurement":
                values = numbers(metric, image, y, self.operator)
            else:
                values = None if truth is None else numbers(metric, x, truth)
            if values is not None or not metric.optional:
                block = beside_loss if metric.beside_loss else scores
                block[metric.name] = place([None] * len(x) if values is None else values)
        return scores, beside_loss

    def _modes(self, x: torch.Tensor, truth: torch.Tensor | None, place: Place) -> dict[str, Any] | None:
        if truth is None or not self.operator.rotation_ambiguity:
            return None
        modes = mode_labels(x, truth, self.success.threshold_db, self.success.margin_db)
        modes = {name: place(values) for name, values in modes.items()}
        return {**modes, "psnr_rotated_truth": psnr(rotated(truth)[None], truth).item()}

    def _pick(self, loss: Sequence[float | None], x: torch.Tensor, y: torch.Tensor, place: Place) -> int | None:
        """The particle of the lowest loss, in which a fitted exposure is a handicap."""
        more = owed(self.operator, x, y, torch.ones(len(x), len(x), dtype=torch.bool, device=x.device))
        if more is None:
            return pick(loss)
        return pick([None if v is None else v + extra for v, extra in zip(loss, place(more.tolist()))])

    def _summary(
        self,
        x: torch.Tensor,
        truth: torch.Tensor | None,
        ok: Sequence[bool],
        survivors: Sequence[int],
        picked: int | None,
        place: Place,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(block of the record, its arrays) of what the particles say together; empty for one particle alone."""
        fine = [i for i, each in enumerate(ok) if each]
        if picked is None or len(fine) < 2:
            return {}, {}
        at = [survivors[i] for i in fine].index(self.particles[picked])
        summary = aligned.summarise(to_unit(x[fine]), at, aligned.symmetry(self.operator))
        agreeing = iter(summary.agreeing)
        block = {
            "agreeing": place([next(agreeing) if each else None for each in ok]),
            "psnr": self._psnr_of(summary.mean, truth),
            "resolution": summary.resolution,
        }
        arrays = {"summary_mean": to_pixels(2 * summary.mean[None] - 1)[0]}
        if summary.std is None or summary.prtf is None:
            return block, arrays
        return block, {**arrays, "summary_std": summary.std.half().numpy(), "summary_prtf": summary.prtf.numpy()}

    def _population(self, history: Sequence[Verdict], survivors: Sequence[int]) -> dict[str, Any]:
        """How a sequential population grew; nothing of a fixed one."""
        if not history:
            return {}
        assert self.thresholds is not None, "verdicts are given by the thresholds of a certificate"
        return {"population": certificate.block(history, survivors, self.particles, self.thresholds)}

    def _psnr_of(self, mean: torch.Tensor, truth: torch.Tensor | None) -> float | None:
        """PSNR of one image (C, H, W) in [0, 1], in the better orientation where the task has two; None without a truth."""
        if truth is None:
            return None
        truths = torch.stack([truth, rotated(truth)] if self.operator.rotation_ambiguity else [truth])
        return psnr(2 * mean[None] - 1, truths).max().item()
