"""From one image's particles to its record."""

import torch

from utils.evaluation.scores import PICK_RULE, Lpips, mode_labels, pick, psnr, rotated, ssim
from utils.records.aggregate import SCORES
from utils.records.folder import to_pixels


class Evaluator:
    """Scores images and builds their records.

    operator: to know whether the task has the rotation ambiguity; success: threshold_db and margin_db of the labels;
    particles: the indices that every image starts with; clock, events: what happened when.
    """

    def __init__(self, operator, success, particles, clock, events):
        self.operator, self.success, self.particles = operator, success, particles
        self.clock, self.events = clock, events
        self.lpips = Lpips()

    def record(self, image, truth, result, trace, profiler, batch_images):
        """(record, arrays) of one image of a batch.

        image: utils.data.TestImage or Measurement; truth (3, H, W) on the CPU, None for a measurement;
        result: sampler.SampleResult of the whole batch; trace: utils.metrics.Trace.
        Lists per particle follow `particles`; a pruned one is None.
        """
        where = result.particles.of_image(image.id)
        on_device = where.to(result.image.device)
        mine = result.particles.select(where)
        x, z, y, survivors = result.image[on_device].float().cpu(), mine.z.cpu(), mine.y[:1], mine.index.tolist()
        ok = torch.isfinite(z).flatten(1).all(1).tolist()

        def place(values):
            """Values of the survivors -> one per starting particle; None where pruned or diverged."""
            known = {index: value for index, value, fine in zip(survivors, values, ok) if fine}
            return [known.get(index) for index in self.particles]

        loss = place(result.loss[on_device].tolist())
        scores = self._scores(x, truth, place)
        modes = self._modes(x, truth, place)
        picked = pick(loss)
        record = {
            "schema": 1,
            "image_id": image.id,
            "file": image.path.name,
            "sha256": image.sha256(),
            "particles": list(self.particles),
            "survivors": survivors,
            "scores": scores,
            "modes": modes,
            "loss": loss,
            "noise_floor": self.operator.noise_floor(y),
            "selection": {
                "picked": picked,
                "psnr": scores["psnr"][picked] if picked is not None else None,
                "psnr_aligned": modes["psnr_aligned"][picked] if modes and picked is not None else None,
                "rule": PICK_RULE,
            },
            "trace": {
                "timestep": [self.clock.timestep(i) for i in range(self.clock.num_steps)],
                **trace.of_image(image.id, self.particles),
            },
            "pruning": self._pruning(result.pruning.get(image.id)),
            "optimization": self._optimization(result.optimization, image.id),
            "time": _time(profiler, batch_images),
            "diverged": [not dict(zip(survivors, ok)).get(index, True) for index in self.particles],
        }
        arrays = {"y": y[0].cpu().numpy(), "z": z.numpy(), "images": to_pixels(x)}
        return record, arrays if truth is None else {**arrays, "truth": to_pixels(truth[None])[0]}

    def _scores(self, x, truth, place):
        if truth is None:
            return {name: [None] * len(self.particles) for name in SCORES}
        return {
            "psnr": place(psnr(x, truth).tolist()),
            "ssim": place(ssim(x, truth).tolist()),
            "lpips": place(self.lpips(x, truth)),
        }

    def _modes(self, x, truth, place):
        if truth is None or not self.operator.rotation_ambiguity:
            return None
        modes = mode_labels(x, truth, self.success.threshold_db, self.success.margin_db)
        modes = {name: place(values) for name, values in modes.items()}
        return {**modes, "psnr_rotated_truth": psnr(rotated(truth)[None], truth).item()}

    def _pruning(self, report):
        if report is None:
            return None
        index = self.events.pruning_index
        return {"step_index": index, "timestep": self.clock.timestep(index), **report}

    def _optimization(self, calls, image_id):
        """Calls, iterations and stop reasons of each particle, and the seconds of its share of the calls."""
        if self.events.optimization_index is None:
            return None
        block = {
            "calls": [0] * len(self.particles),
            "iterations": [0] * len(self.particles),
            "calls_without_iteration": [0] * len(self.particles),
            "stopped_by": [[] for _ in self.particles],
            "time_s": 0.0,
        }
        for call in calls:
            for image, index, iterations, stop in zip(call["image"], call["index"], call["iterations"], call["stopped_by"]):
                if image == image_id:
                    slot = self.particles.index(index)
                    block["calls"][slot] += 1
                    block["iterations"][slot] += iterations
                    block["calls_without_iteration"][slot] += iterations == 0
                    block["stopped_by"][slot].append(stop)
            block["time_s"] += call["time_s"] / len(set(call["image"]))
        return block


def _time(profiler, batch_images):
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
