"""Tiny runs: 16-pixel images, the tiny prior or a float64 analytic one, and ways to start them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from PIL import Image

from utils.paths import PROJECT

SIDE = 16
TINY = (
    "gpu=-1",
    f"model.resolution={SIDE}",
    f"data.resolution={SIDE}",
    "sampler.annealing_scheduler_config.num_steps=3",
    "task.demo_langevin.mcmc_sampler_config.num_steps=2",
    "chain_check=false",
    "workers=1",  # processes are started where they are the matter: tests/running/test_workers.py
)
ANALYTIC = "model._target_=tests.worlds.runs.load_analytic"
# A(x) = s x, linear as no pixel is clipped, and tau = s: the data term is |D(z) - y / s|^2
LINEAR = ("task=hdr", "task.demo_langevin.operator.scale=1e-6", "task.demo_langevin.mcmc_sampler_config.tau=1e-6")


def set_chain(**values):
    """Overrides of the inner chain."""
    return [f"task.demo_langevin.mcmc_sampler_config.{key}={value}" for key, value in values.items()]


def save_images(folder, count):
    """`count` smooth 16-pixel PNG images."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for i in range(count):
        waves = [np.sin(2 * np.pi * ((i % 3 + 1) * x + c * y) + i) for c in range(3)]
        Image.fromarray(np.uint8(np.stack(waves, -1) * 110 + 128)).save(folder / f"{i:05d}.png")
    return folder


def load_analytic(path, device, timestep_map, **_):
    """A float64 Gaussian mixture in 8 dimensions with a linear decoder to 16-pixel images; needs nothing from `path`."""
    import torch

    from tests.worlds.mixture import GaussianMixturePrior

    class Prior(GaussianMixturePrior):
        def __init__(self):
            generator = torch.Generator().manual_seed(0)
            means, decoder = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (2, 3 * SIDE * SIDE))
            super().__init__(means, [0.5, 0.7], [0.4, 0.6], 0.2 * decoder, device=device)
            self.resolution = SIDE

        def decode(self, z):
            return super().decode(z).reshape(len(z), 3, SIDE, SIDE)

    return Prior()


def config(overrides):
    """The composed config of posterior_sample.py with some overrides."""
    with initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
        return compose("default", overrides=list(overrides))


def run(*overrides):
    """One run in this process."""
    import posterior_sample

    posterior_sample.run(config(overrides))


def without_pictures(patch):
    """Leave out the figures, which take longer than these runs themselves."""

    from utils.figures import run as run_figures

    patch.setattr(run_figures, "draw_all", lambda folder: [])


def environment(**more):
    """One thread a process, so that results are comparable and the machine is left alone."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def command(*overrides, check=True, program=(sys.executable,), **more):
    """The program as a user starts it; the finished process with its output as text."""
    done = subprocess.run(
        [*program, "posterior_sample.py", *overrides],
        cwd=PROJECT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def metrics_of(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


def scores(metrics, memory=True):
    """metrics.json without times and what is computed from them, without the run's name and the commit of the program.

    memory=False also leaves out what depends on the pass size.
    """
    kept = {k: v for k, v in metrics.items() if k not in ("time", "cost", *(() if memory else ("vram",)))}
    kept["metadata"] = {
        k: v
        for k, v in metrics["metadata"].items()
        if k not in ("name", "git_commit") and (memory or k not in ("device", "gpu"))
    }
    if kept["optimization"] is not None:
        kept["optimization"] = {k: v for k, v in kept["optimization"].items() if k != "time_s"}
    kept["phases"] = {
        name: {k: v for k, v in phase.items() if k not in ("time_s", "chain_s")}
        for name, phase in metrics["time"]["phases"].items()
    }
    return kept


# of the loss of the 3 x 24 x 24 magnitudes measured here, in one noise floor: loss.deviation is so many times loss.ratio - 1
DEVIATIONS = (3 * 24 * 24 / 2) ** 0.5


def assert_close(a, b, absolute, path="metrics"):
    """The same structure, texts and integers, and every float within `absolute`."""
    assert type(a) is type(b), f"{path}: {a} and {b}"
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_close(a[key], b[key], absolute, f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            assert_close(x, y, absolute, f"{path}[{i}]")
    elif isinstance(a, float):
        limit = absolute * DEVIATIONS if ".deviation[" in path else absolute
        assert abs(a - b) <= limit, f"{path}: {a} and {b}"
    else:
        assert a == b, f"{path}: {a} and {b}"


class Place:
    """A folder for runs of a second each, `particles` per image: 3 annealing steps of 2 inner iterations.

    prior: folder of the tiny pipeline; images: a folder of 16-pixel images, or how many to draw; overrides: of all runs.
    """

    def __init__(self, folder, prior, images=6, particles=2, overrides=()):
        self.folder, self.prior = folder, prior
        self.images = save_images(folder / "images", images) if isinstance(images, int) else images
        self.overrides = [*TINY, f"num_samples={particles}", f"model.path={prior}", f"data.root={self.images}", *overrides]

    def all(self, name, *overrides):
        """The overrides of one run; its folder is `path(name)`."""
        return [*self.overrides, f"save_dir={self.folder / 'results'}", f"name={name}", *overrides]

    def path(self, name):
        return self.folder / "results" / name

    def run(self, name, *overrides):
        run(*self.all(name, *overrides))
        return self.path(name)
