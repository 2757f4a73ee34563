"""From one image's particles to its record."""
import torch

from utils import metrics
from utils.results import SCORES
from utils.run_folder import to_pixels


class Evaluator:
    """Scores images and builds their records.

    operator: to know whether the task has the rotation ambiguity; success: threshold_db and margin_db of the labels.
    """

    def __init__(self, operator, success):
        self.operator, self.success = operator, success
        self.lpips = metrics.Lpips()

    def record(self, image, truth, result, trace, profiler, batch_images, timesteps):
        """(record, arrays) of one image of a batch.

        image: utils.data.TestImage or Measurement; truth (3, H, W) on the CPU, None for a measurement; result: sampler.SampleResult of the whole batch;
        trace: utils.metrics.Trace; timesteps: the step clock's timestep of every annealing step.
        """
        where = result.particles.of_image(image.id)
        x = result.image[where.to(result.image.device)].float().cpu()
        z = result.particles.z[where.to(result.image.device)].cpu()
        loss = result.loss[where.to(result.image.device)].tolist()
        ok = torch.isfinite(z).flatten(1).all(1).tolist()
        y = result.particles.y[where[0]]
        picked = metrics.pick([value if fine else None for value, fine in zip(loss, ok)])
        modes = self._modes(x, truth, ok)
        scores = self._scores(x, truth, ok)
        position = list(dict.fromkeys(result.particles.image.tolist())).index(image.id)
        record = {
            "schema": 1, "image_id": image.id, "file": image.path.name, "sha256": image.sha256(),
            "particles": result.particles.index[where].tolist(),
            "scores": scores, "modes": modes, "loss": loss, "noise_floor": self.operator.noise_floor(y[None]),
            "selection": {"picked": picked, "psnr": scores["psnr"][picked] if picked is not None else None,
                          "psnr_aligned": modes["psnr_aligned"][picked] if modes and picked is not None else None,
                          "rule": metrics.PICK_RULE},
            "trace": {"timestep": timesteps, "pairwise_distance": [row[position] for row in trace.distance],
                      "psnr": [[row[i] for i in where] for row in trace.psnr],
                      "loss": [[row[i] for i in where] for row in trace.loss]},
            "time": _time(profiler, batch_images), "diverged": [not fine for fine in ok],
        }
        arrays = {"y": y.cpu().numpy(), "z": z.numpy(), "images": to_pixels(x)}
        return record, arrays if truth is None else {**arrays, "truth": to_pixels(truth[None])[0]}

    def _scores(self, x, truth, ok):
        if truth is None:
            return {name: [None] * len(x) for name in SCORES}
        scores = {"psnr": metrics.psnr(x, truth).tolist(), "ssim": metrics.ssim(x, truth).tolist(),
                  "lpips": self.lpips(x, truth)}
        return {name: _only(values, ok) for name, values in scores.items()}

    def _modes(self, x, truth, ok):
        if truth is None or not self.operator.rotation_ambiguity:
            return None
        modes = metrics.mode_labels(x, truth, self.success.threshold_db, self.success.margin_db)
        modes = {name: values if name == "label" else _only(values, ok) for name, values in modes.items()}
        modes["label"] = [label if fine else "failed" for label, fine in zip(modes["label"], ok)]
        modes["psnr_rotated_truth"] = metrics.psnr(metrics.rotated(truth)[None], truth).item()
        return modes


def _only(values, ok):
    return [value if fine else None for value, fine in zip(values, ok)]


def _time(profiler, batch_images):
    """A batch's time is divided by its images; network calls are per particle already."""
    phases = profiler.as_dict()
    for phase in phases.values():
        phase["time_s"] /= batch_images
    return {"image_s": sum(p["time_s"] for p in phases.values()),
            "step_s": [s / batch_images for s in profiler.step_s], "phases": phases}
