"""Samples the images of a run batch by batch, and writes each one's record as soon as it is done."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from utils import device as devices
from utils.config.settings import Settings
from utils.data import TestItem
from utils.diagnosis.chain_check import check_chain
from utils.diagnosis.convergence import Convergence
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.trace import Trace
from utils.population.certificate import Certificate
from utils.population.prior_score import PriorScore
from utils.population.rounds import sample_in_rounds
from utils.records import decoder_floor
from utils.records.arrays import write_arrays
from utils.records.folder import RunFolder
from utils.records.summary import resolution
from utils.running import console
from utils.running.batching import images_per_batch
from utils.running.build import build, check_measurements, load_batch
from utils.running.results import results_of


class Turn(Protocol):
    """One process's part in the work of several: `Alone` does all of it, utils.running.workers.Turn what it is given."""

    first: bool  # of the processes: what is asked once, it asks
    count: int  # of processes

    def checked(self) -> None:
        """The images are fit to be sampled."""

    def bar(self, images: int, steps: int) -> AbstractContextManager[console.SamplingSteps]: ...

    def take(self, size: int) -> Sequence[TestItem]:
        """The next `size` images, or what is left of them; none: the work is done."""


class Alone:
    first, count = True, 1

    def __init__(self, images: Sequence[TestItem]) -> None:
        self.rest = images

    def checked(self) -> None:
        pass

    def bar(self, images: int, steps: int) -> AbstractContextManager[console.SamplingSteps]:
        return console.progress_bar(images, steps)

    def take(self, size: int) -> Sequence[TestItem]:
        batch, self.rest = self.rest[:size], self.rest[size:]
        return batch


def sample(settings: Settings, images: Sequence[TestItem], folder: RunFolder, turn: Turn | None = None) -> None:
    """Sample the images batch by batch and write each one's record as soon as it is done; turn: None for all of them."""
    turn = turn or Alone(images)
    parts = build(settings)
    folder.made_of(settings.digests())
    if settings.data.kind == "measurement" and turn.first:
        check_measurements(parts, images)
    turn.checked()
    s = settings.sequential
    evaluator = Evaluator(
        parts.operator,
        settings.success,
        parts.census.numbers,
        parts.clock,
        parts.sampler.mechanisms,
        s.thresholds,
        parts.metrics,
        parts.side,
        decoder_floor.energy_of(settings) if parts.sampler.decodes else None,
        parts.noise,
    )
    certificate = None
    if settings.population == "sequential":
        certificate = Certificate(parts.operator, PriorScore(parts.sampler.prior, parts.noise, s.sigmas), s.thresholds)
    if turn.first:
        check_chain(parts, settings, images[0])
    convergence = Convergence(parts, settings, images[0])
    per_batch = images_per_batch(parts, settings, images[: -(-len(images) // turn.count)])
    device = devices.describe(parts.device)
    if settings.batch_images == "auto":
        device["batch_images"] = per_batch
    with turn.bar(len(images), parts.clock.num_steps) as bar:
        while batch := turn.take(per_batch):
            particles, truth = load_batch(parts, settings, batch)  # truth: (N, 3, H, W), None for measurements
            truths = [None] * len(batch) if truth is None else truth
            on_device = None if truth is None else {image.id: x.to(parts.device) for x, image in zip(truth, batch)}
            trace = Trace(on_device, bar.advance, parts.operator)
            rounds = sample_in_rounds(
                parts.sampler, particles, settings.rounds, certificate, convergence.watching(trace), bar.begin
            )
            finished = [
                evaluator.record(image, x, rounds.result, trace, rounds.profilers[image.id], rounds.history[image.id])
                for x, image in zip(truths, batch)
            ]
            for record, arrays in finished:  # written together: a kill seldom falls inside a batch
                if settings.save_arrays:
                    results = results_of(record, rounds.result, parts.operator, parts.side, settings.data.channels or 3)
                    with folder.writing():
                        write_arrays(
                            folder.path,
                            record["image_id"],
                            results,
                            settings.save_arrays,
                            folder.about or {},
                            settings.model.path,
                        )
                folder.add(record, arrays, device)
                report(record)
            convergence.tell([record for record, _ in finished], truths)
    convergence.close()


def report(record: dict[str, Any]) -> None:
    """One log line per image."""
    modes = record["modes"]
    scores = [v for v in (modes["psnr_aligned"] if modes else record["scores"]["psnr"]) if v is not None]
    losses = [v for v in record["loss"] if v is not None]
    best = f"best PSNR {max(scores):.2f} dB" if scores else f"lowest loss {min(losses):.4g}" if losses else "no finite particle"
    best += f" ({resolution(record['resolved'])})" if "resolved" in record else ""
    labels = " ".join(label or "-" for label in modes["label"]) if modes else ""
    console.log.info("image %d: %s %s, %.1f s", record["image_id"], labels, best, record["time"]["image_s"])
    for index, diverged in zip(record["particles"], record["diverged"]):
        if diverged:
            console.log.warning("image %d: particle %d became non-finite; its scores are null", record["image_id"], index)
