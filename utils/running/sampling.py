"""Samples the images of a run batch by batch, and writes each one's record as soon as it is done."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from utils import device as devices
from utils.config.settings import Settings
from utils.data import Lost, TestItem
from utils.diagnosis.chain_check import check_chain
from utils.diagnosis.convergence import Convergence
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.trace import Trace
from utils.population.certificate import Certificate
from utils.population.prior_score import PriorScore
from utils.population.rounds import sample_in_rounds
from utils.records import decoder_floor
from utils.records.aggregate import finite
from utils.records.arrays import write_arrays
from utils.records.folder import RunFolder
from utils.records.summary import resolution
from utils.running import console
from utils.running.batching import images_per_batch
from utils.running.build import Parts, build, load_batch
from utils.running.checking import check_measurements
from utils.running.geometry import digests_of
from utils.running.results import results_of
from utils.running.watching import Watch
from utils.sampling.mechanism import OnStep
from utils.sampling.outcome import SampleResult, StepInfo


class Turn:
    """One process's part in the work of several: here all of it. A worker has utils.running.workers.Turn in its place.

    first: of the processes: what is asked once, it asks; count: of processes
    """

    first, count = True, 1

    def __init__(self, images: Sequence[TestItem], watch: Watch | None = None, progress: bool = True) -> None:
        self.images_left, self.watch, self.progress = images, watch, progress

    def checked(self) -> None:
        """The images are fit to be sampled."""

    def bar(self, images: int, steps: int) -> AbstractContextManager[console.SamplingSteps]:
        return console.progress_bar(images, steps, self.watch, shown=self.progress)

    def take(self, size: int) -> Sequence[TestItem]:
        """The next `size` images, or what is left of them; none: the work is done."""
        batch, self.images_left = self.images_left[:size], self.images_left[size:]
        return batch


def sample(
    settings: Settings, images: Sequence[TestItem], folder: RunFolder, turn: Turn | None = None, watch: Watch | None = None
) -> None:
    """Sample the images batch by batch and write each one's record as soon as it is done.

    turn: None for all of them; watch: is told then. Raises Lost where no file is there any more.
    """
    turn = turn or Turn(images, watch)
    parts = build(settings)
    folder.made_of(settings.digests() | digests_of(parts.geometry, settings))
    if settings.data.kind == "measurement" and turn.first:
        check_measurements(parts, images, settings.task_group)
    turn.checked()

    def keep(record: dict[str, Any], arrays: dict[str, np.ndarray], device: dict[str, Any], result: SampleResult) -> None:
        if settings.save_arrays:
            results = results_of(record, result, parts.operator, parts.side, settings.data.channels or 3)
            about, at = folder.about or {}, (folder.path, record["image_id"])
            with folder.writing():
                write_arrays(*at, results, settings.save_arrays if results else [], about, settings.model.path)
        folder.add(record, arrays, device)
        report(record, settings.data.kind == "measurement")

    sample_with(parts, settings, images, turn, keep)


# gets an image's record, not yet stamped, with its arrays and the device, and the result of its whole batch
Keep = Callable[[dict[str, Any], dict[str, np.ndarray], dict[str, Any], SampleResult], None]


def sample_with(
    parts: Parts, settings: Settings, images: Sequence[TestItem], turn: Turn, keep: Keep, on_step: OnStep | None = None
) -> None:
    """Sample the images of this turn with parts that are built, and hand each one to `keep` as soon as its batch is done.

    An image whose file goes away or changes meanwhile is left out. on_step: is told of each annealing step of each batch.
    Raises Lost where no file is there any more.
    """
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
        batch = turn.take(per_batch)
        while batch:
            try:
                particles, truth = load_batch(parts, settings, batch)  # truth: (N, 3, H, W), None for measurements
            except Lost as error:
                if not any(os.path.exists(image.path) for image in images):  # of a share that is no longer mounted
                    raise
                console.log.warning("image %d is left out: %s", error.image_id, error)
                bar.move(more=-parts.clock.num_steps)
                batch = [image for image in batch if image.id != error.image_id] or turn.take(per_batch)
                continue
            truths = [None] * len(batch) if truth is None else truth
            on_device = None if truth is None else {image.id: x.to(parts.device) for x, image in zip(truth, batch)}
            trace = Trace(on_device, bar.advance, parts.operator)

            def traced(info: StepInfo) -> None:
                trace(info)
                if on_step is not None:
                    on_step(info)

            watched = convergence.watching(traced)
            rounds = sample_in_rounds(parts.sampler, particles, settings.rounds, certificate, watched, bar.begin)
            finished = [
                evaluator.record(image, x, rounds.result, trace, rounds.profilers[image.id], rounds.history[image.id])
                for x, image in zip(truths, batch)
            ]
            for record, arrays in finished:  # written together: a kill seldom falls inside a batch
                keep(record, arrays, device, rounds.result)
                bar.finished(record, arrays)
            convergence.tell([record for record, _ in finished], truths)
            batch = turn.take(per_batch)
    convergence.close()


def report(record: dict[str, Any], named: bool) -> None:
    """One log line per image; named: with its file."""
    modes = record["modes"]
    scores = finite(modes["psnr_aligned"] if modes else record["scores"]["psnr"])
    losses, floor = finite(record["loss"]), record["noise_floor"]
    if scores:
        best = f"best PSNR {max(scores):.2f} dB"
    elif losses:
        best = f"lowest loss / floor {min(losses) / floor:.3f}" if floor else f"lowest loss {min(losses):.4g}"
    else:
        best = "no finite particle"
    best += f" ({resolution(record['resolved'])})" if "resolved" in record else ""
    labels = " ".join(label or "-" for label in modes["label"]) if modes else ""
    name = f"{record['image_id']} ({record['file']})" if named else str(record["image_id"])
    console.log.info("image %s: %s, %.1f s", name, f"{labels} {best}".strip(), record["time"]["image_s"])
    for index, diverged in zip(record["particles"], record["diverged"]):
        if diverged:
            console.log.warning("image %d: particle %d became non-finite; its scores are null", record["image_id"], index)
