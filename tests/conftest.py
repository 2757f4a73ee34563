"""Small worlds for the tests: a tiny random prior, tiny images, an analytic prior; nothing outside the checkout."""

import logging
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # ranks get one thread each, and sums in other orders are other bits
os.environ.setdefault("PJRT_DEVICE", "CPU")
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

import pytest
from hydra.core.hydra_config import HydraConfig

from tests.worlds import runs

sys.modules.setdefault("torch_xla", None)  # diffusers imports it on sight, for seconds; tests/xla take this back


@pytest.fixture(autouse=True)
def as_in_a_fresh_process():
    """What runs set up for their process, so that a test does not depend on the tests before it."""
    import torch

    torch.set_flush_denormal(True)
    log = logging.getLogger("latentdaps")
    log.setLevel(logging.INFO)  # as the program's console has it, for runs within a test
    yield
    for handler in log.handlers:  # else every later run writes into the logs of the earlier ones
        handler.close()
    log.handlers, log.propagate = [], True
    HydraConfig.instance().cfg = None  # else the next run's records name the command line of this one


@pytest.fixture(scope="session")
def composed():
    """composed(*overrides) -> the config that posterior_sample.py would get."""

    return lambda *overrides: runs.config(["gpu=-1", *overrides])


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory):
    """Folder of a random latent diffusion pipeline: 16x16 images, latents 4x8x8."""
    from tests.worlds.tiny import kl_pipeline

    folder = tmp_path_factory.mktemp("tiny_prior")
    kl_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def network_prior(tiny_prior):
    """The tiny random pipeline, loaded on the CPU."""
    import torch

    from utils.priors.latent_diffusion import load_pipeline

    return load_pipeline(tiny_prior, torch.device("cpu"))


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory):
    """Folder of 12 smooth 16x16 images."""
    return runs.save_images(tmp_path_factory.mktemp("tiny_images") / "images", 12)


@pytest.fixture
def tiny(tiny_prior, tiny_images, tmp_path):
    """Overrides of a run that takes a second, of two images with four particles each; it goes to results/run."""
    return runs.Place(tmp_path, tiny_prior, tiny_images, particles=4).all("run", "data.end_id=2")


@pytest.fixture
def run(composed, tiny, tmp_path, monkeypatch):
    """run(*overrides, pictures=False) -> (folder, metrics) of a tiny run in this process."""
    import posterior_sample

    def start(*overrides, pictures=False):
        cfg = composed(*tiny, *overrides)
        with monkeypatch.context() as patch:
            if not pictures:
                runs.without_pictures(patch)
            posterior_sample.run(cfg)
        folder = tmp_path / "results" / cfg.name
        return folder, runs.metrics_of(folder)

    return start


@pytest.fixture
def refused(composed, tiny, tmp_path):
    """refused(message, *overrides): a tiny run with them ends in one line that holds the message, with nothing on disk."""
    import posterior_sample
    from utils.errors import InputError

    def check(message, *overrides):
        with pytest.raises(InputError) as caught:
            posterior_sample.run(composed(*tiny, *overrides))
        assert message in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "results").exists()

    return check


@pytest.fixture(scope="module")
def no_pictures():
    """Leaves out the figures of the runs of a test file."""
    with pytest.MonkeyPatch.context() as patch:
        runs.without_pictures(patch)
        yield
