"""Numbers of a config that no computation could go on with are refused before memory or time is taken."""

import pytest
from omegaconf import OmegaConf

from utils.config.check import check
from utils.config.section import LARGEST, SMALLEST
from utils.errors import InputError

CHAIN = "task.demo_langevin.mcmc_sampler_config"
OPERATOR = "task.demo_langevin.operator"


@pytest.mark.parametrize("value", [2 * LARGEST, SMALLEST / 2])
@pytest.mark.parametrize(
    "key",
    [
        f"{CHAIN}.tau",
        f"{CHAIN}.lr",
        f"{CHAIN}.gradient_clip",
        f"{CHAIN}.likelihood_factor",
        f"{OPERATOR}.sigma",
        f"{OPERATOR}.oversample",
        "sampler.annealing_scheduler_config.sigma_max",
        "sampler.annealing_scheduler_config.sigma_min",
        "sampler.diffusion_scheduler_config.sigma_min",
        "repulsion_scale",
        "repulsion.bandwidth",
        "optimization.max_move",
        "fidelity.photons",
        "fidelity.background",
        "sequential.sigmas",
        "temperature",
        "data.gain",
        "success.margin_db",
    ],
)
def test_a_number_beyond_single_precision_is_refused(composed, key, value):
    cfg = composed("population=sequential")
    OmegaConf.update(cfg, key, [0.3, value] if key == "sequential.sigmas" else value, force_add=True)
    with pytest.raises(InputError, match=rf"^{key}=.*(must be 0 or of a size|greater than or equal to 0.000000001$)") as caught:
        check(cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override, line",
    [
        ("num_samples=2000000000", "num_samples=2000000000: .*less than or equal to 100000"),
        (
            f"{OPERATOR}.oversample=10000",
            rf"{OPERATOR}\.oversample=10000\.0: asks for 160064 samples a .* the most are 16384",
        ),
        ("sampler.annealing_scheduler_config.num_steps=1000000000000", r"\.num_steps=1000000000000: .*or equal to 100000"),
        ("sampler.diffusion_scheduler_config.num_steps=1000000000000", r"\.num_steps=1000000000000: .*or equal to 100000"),
        (f"{CHAIN}.num_steps=1000000000000", "num_steps=1000000000000: .*less than or equal to 100000"),
        ("polish.num_steps=1000000000000", "num_steps=1000000000000: .*less than or equal to 100000"),
        ("data.resolution=1000000000", "data.resolution=1000000000: .*less than or equal to 16384"),
        ("pyramid.levels=[1000000000]", r"pyramid\.levels\[0\]=1000000000: .*less than or equal to 16384"),
    ],
)
def test_a_count_that_would_need_all_memory_is_refused(composed, override, line):
    with pytest.raises(InputError, match=line):
        check(composed(override))


def test_a_blur_that_is_wider_than_any_picture_is_refused(composed):
    with pytest.raises(InputError, match=r"intensity=1000000\.0: .*less than or equal to 1000"):
        check(composed("task=gaussian_blur", f"{OPERATOR}.intensity=1e6"))


def test_what_a_detector_writes_where_nothing_is_measured_may_be_of_any_size(composed, tmp_path):
    overrides = ("data=measurement", f"data.root={tmp_path}", "data.mask=[-3.4e38,1e300]", "num_samples=100000")
    assert check(composed(*overrides)).data.mask == [-3.4e38, 1e300]
