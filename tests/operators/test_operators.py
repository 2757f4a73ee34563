"""One table over all forward operators, and what is special to one of them."""

import importlib
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf

from operators.blur import GaussianBlur, MotionBlur, motion_path
from operators.deepinv_adapter import DeepinvPhysics
from operators.hdr import HighDynamicRange
from operators.inpainting import Inpainting
from operators.nonlinear_blur import UNUSED, NonlinearBlur
from operators.phase_retrieval import PhaseRetrieval
from operators.super_resolution import SuperResolution
from tests.worlds import published, runs
from utils.config.operators import OURS, check_operator
from utils.errors import InputError
from utils.noise import keyed_generator
from utils.paths import PROJECT


def make_nonlinear_blur(resolution, folder):
    """The real loading code on random weights under the published names."""
    generator = torch.Generator().manual_seed(0)
    path = folder / "GOPRO_wVAE.pth"
    if not path.exists():
        shapes = published.shapes("kernel_wizard").items()
        used = {k: torch.randn(s, generator=generator) / math.prod(s[1:]) ** 0.5 for k, s in shapes if not k.startswith(UNUSED)}
        torch.save({**published.constants("kernel_wizard"), **used}, path)
    return NonlinearBlur(resolution, str(path))


# name: (side of the images, constructor); odd sides wherever the operator allows them
TABLE = {
    "phase_retrieval": (33, lambda r, folder: PhaseRetrieval(oversample=2.0)),
    "phase_retrieval_luminance": (33, lambda r, folder: PhaseRetrieval(oversample=2.0, channels=1)),
    "super_resolution": (33, lambda r, folder: SuperResolution(r, scale_factor=4)),
    "inpainting_box": (33, lambda r, folder: Inpainting(r, "box", mask_len_range=[9, 14], margin=4)),
    "inpainting_random": (33, lambda r, folder: Inpainting(r, "random", mask_prob_range=[0.7, 0.71])),
    "gaussian_blur": (33, lambda r, folder: GaussianBlur(kernel_size=15, intensity=1.5)),
    "motion_blur": (33, lambda r, folder: MotionBlur(kernel_size=15, intensity=0.5)),
    "hdr": (33, lambda r, folder: HighDynamicRange(scale=2.0)),
    "nonlinear_blur": (128, make_nonlinear_blur),
    "deepinv": (33, lambda r, folder: DeepinvPhysics(deepinv_downsampling(r))),
}


def deepinv_downsampling(resolution):
    deepinv = pytest.importorskip("deepinv")
    return deepinv.physics.Downsampling(img_size=(3, resolution, resolution), factor=3, filter="gaussian")


HEAVY = {"nonlinear_blur"}  # a network, of weights of its own


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.heavy if name in HEAVY else ()) for name in TABLE])
def case(request, tmp_path_factory):
    """(operator in float64, images (3, 3, side, side) in [-1, 1])."""
    side, make = TABLE[request.param]
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(3, 3, side, side, generator=generator, dtype=torch.float64) - 1
    return make(side, tmp_path_factory.mktemp("weights")).double(), x


def test_batch_equals_singles(case):
    operator, x = case
    torch.testing.assert_close(operator(x), torch.cat([operator(each[None]) for each in x]), rtol=1e-12, atol=1e-12)


def test_loss_is_the_sum_of_squared_residuals_of_each_particle(case):
    operator, x = case
    y = operator(x[:1])
    loss = operator.loss(x, y.expand(3, *y.shape[1:]))
    assert loss.shape == (3,)
    assert loss[0] < 1e-20 < loss[1]
    assert loss[1].item() == pytest.approx(sum(v**2 for v in (operator(x[1:2]) - y).flatten().tolist()), rel=1e-9)


def test_vector_jacobian_product_equals_finite_differences(case):
    operator, x = case
    x = x[:1].clone().requires_grad_()
    generator = torch.Generator().manual_seed(2)
    y = operator(x)
    v = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((y * v).sum(), x)
    step = 1e-6  # the error of a central difference is step^2; kinks (clip, ReLU) are hit by few pixels
    with torch.no_grad():
        numeric = ((operator(x + step * direction) - operator(x - step * direction)) * v).sum() / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(numeric.item(), rel=1e-4)


@pytest.mark.parametrize("image", ["random", "black", "grey", "white"])
def test_gradients_are_finite_also_on_constant_images(case, image):
    operator, x = case
    value = {"random": x[:1], "black": -torch.ones_like(x[:1]), "grey": 0 * x[:1], "white": torch.ones_like(x[:1])}[image]
    value = value.float().requires_grad_()
    operator = operator.float()
    y = operator(x[1:2].float())
    (gradient,) = torch.autograd.grad(operator.loss(value, y).sum(), value)
    operator.double()
    assert torch.isfinite(gradient).all()
    assert image != "random" or gradient.abs().sum() > 0  # a black spectrum or a saturated image has none


def test_noise_has_mean_zero_and_the_stated_variance(case):
    operator, x = case
    clean = operator(x[:1])
    generator = torch.Generator().manual_seed(3)
    repeats = max(1, 40_000 // clean.numel())
    residual = torch.cat(
        [
            (operator.measure(x[:1], torch.randn(clean.shape, generator=generator, dtype=torch.float64)) - clean).flatten()
            for _ in range(repeats)
        ]
    )
    n = len(residual)
    assert abs(residual.mean()) < 5 * operator.sigma / n**0.5
    assert residual.var().item() == pytest.approx(operator.sigma**2, rel=5 * (2 / n) ** 0.5)
    assert operator.noise_floor(clean).item() == pytest.approx(clean.numel() * operator.sigma**2)


def test_everything_it_holds_follows_to(case):
    operator, x = case
    held = [*operator.buffers(), *operator.parameters()]
    assert all(t.dtype == torch.float64 for t in held if t.is_floating_point())
    loose = [name for name, value in vars(operator).items() if torch.is_tensor(value)]
    assert loose == []  # a tensor that is no buffer would stay behind on the CPU


def test_linear_ones_are_linear_and_pass_the_adjoint_test(case):
    operator, x = case
    a, b = x[:1], x[1:2]
    superposed = operator(2 * a - 3 * b)
    is_linear = torch.allclose(superposed, 2 * operator(a) - 3 * operator(b), rtol=1e-10, atol=1e-10)
    assert is_linear == operator.linear
    if operator.linear:
        v = torch.randn(superposed.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        _, adjoint = torch.autograd.functional.vjp(operator, a, v)
        assert (operator(b) * v).sum().item() == pytest.approx((b * adjoint).sum().item(), rel=1e-10)


class Fourier:
    """A physics as those of deepinv: images in [0, 1] in, a complex measurement out."""

    def A(self, x):
        return torch.complex(x, -2 * x)


def test_a_physics_of_deepinv_sees_unit_images_and_gives_real_numbers():
    y = DeepinvPhysics(Fourier())(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1))
    assert y.shape == (1, 3, 1, 1, 2)
    assert y.flatten(0, 3).tolist() == [[0.0, 0.0], [0.5, -1.0], [1.0, -2.0]]


def test_high_dynamic_range_clips_at_the_ends_of_the_range():
    y = HighDynamicRange(scale=2.0)(torch.tensor([-1.0, -0.4, 0.0, 0.3, 0.8]))
    assert y.tolist() == pytest.approx([-1.0, -0.8, 0.0, 0.6, 1.0])


def test_the_loss_of_the_channels_adds_up():
    x, y = torch.zeros(2, 3, 2, 2), torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    assert HighDynamicRange().channel_loss(x, y).tolist() == [[4.0, 16.0, 36.0]] * 2


KEYED = {
    "inpainting_box": lambda seed: Inpainting(64, "box", [9, 30], margin=4, seed=seed).mask,
    "inpainting_random": lambda seed: Inpainting(64, "random", mask_prob_range=[0.5, 0.9], seed=seed).mask,
    "motion_blur": lambda seed: MotionBlur(31, 0.5, seed=seed).kernel0,
}


@pytest.mark.parametrize("name", KEYED)
def test_masks_and_kernels_depend_on_the_seed_alone(name):
    np.random.seed(1)
    torch.manual_seed(1)
    first = KEYED[name](7)
    np.random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(first, KEYED[name](7))
    assert not torch.equal(first, KEYED[name](8))


def test_super_resolution_equals_antialiased_bicubic_inside():
    """torch's kernel is the same (a = -1/2); only the border is treated otherwise."""
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = SuperResolution(64, 4).double()(x)
    theirs = F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=1e-6, atol=1e-6)
    assert (ours - theirs)[..., 0, :].abs().max() > 1e-4


def test_super_resolution_mirrors_the_image_at_its_borders():
    """The edge twice: as inside of an image that is really larger."""
    x = np.random.default_rng(0).random((1, 3, 16, 16))
    wide = np.pad(x, ((0, 0), (0, 0), (16, 16), (16, 16)), mode="symmetric")
    ours, theirs = (SuperResolution(len(v[0, 0]), 4).double()(torch.from_numpy(v)) for v in (x, wide))
    torch.testing.assert_close(ours, theirs[..., 4:8, 4:8], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side, scale", [(64, 4), (33, 4), (50, 3)])
def test_super_resolution_keeps_a_constant_image(side, scale):
    y = SuperResolution(side, scale)(torch.full((1, 3, side, side), 0.3))
    assert y.shape[-1] == -(-side // scale)
    torch.testing.assert_close(y, torch.full_like(y, 0.3), rtol=1e-5, atol=1e-6)


def test_gaussian_blur_equals_the_two_dimensional_kernel():
    """DAPS convolves with scipy's blurred impulse in two dimensions, reflecting the border without its edge."""
    impulse = np.zeros((15, 15))
    impulse[7, 7] = 1
    kernel = scipy.ndimage.gaussian_filter(impulse, 1.5)
    x = np.random.default_rng(0).standard_normal((20, 20))
    ours = GaussianBlur(15, 1.5)(torch.from_numpy(x)[None, None].float().expand(1, 3, 20, 20))
    torch.testing.assert_close(
        ours[0, 1].double(), torch.from_numpy(scipy.ndimage.correlate(x, kernel, mode="mirror")), rtol=1e-5, atol=1e-5
    )


def test_motion_kernel_is_a_path_that_sums_to_one():
    for seed in range(5):
        kernel = MotionBlur(61, 0.5, seed=seed).kernel0[0, 0]
        assert kernel.sum().item() == pytest.approx(1, abs=1e-5) and (kernel >= 0).all()
        assert 0.005 < (kernel > 0.2 * kernel.max()).float().mean() < 0.3  # neither a point nor a field


def test_the_motion_path_has_its_length_and_bends_with_its_intensity():
    """Lengths are 0.75 d (U(0, 1) + U(0, intensity^2)) up to one step; a straight one has no bend."""
    paths = {i: [motion_path(keyed_generator(seed, "kernel"), 100.0, i) for seed in range(60)] for i in (0.0, 0.8)}
    steps = {i: [np.abs(np.diff(p)) for p in some if len(p) > 2] for i, some in paths.items()}
    for intensity, mean in ((0.0, 37.5), (0.8, 61.5)):
        lengths = np.array([s.sum() for s in steps[intensity]])
        assert lengths.mean() == pytest.approx(mean, abs=10)
        size = np.concatenate(steps[intensity])
        assert size.mean() == pytest.approx(100 * (1.1 - intensity) / 31, rel=0.1)  # Beta(1, 30)

    def bend(path):
        return np.abs(np.angle(np.diff(path)[1:] / np.diff(path)[:-1])).max()

    assert max(bend(p) for p in paths[0.0] if len(p) > 2) < 0.5 < max(bend(p) for p in paths[0.8] if len(p) > 2)
    assert max(abs(p.mean()) for some in paths.values() for p in some) < 1e-9


def test_box_loses_one_box_of_the_stated_size():
    for seed in range(20):
        lost = torch.nonzero(Inpainting(256, "box", [128, 129], margin=32, seed=seed).mask == 0)
        assert len(lost) == 128**2 and (lost.amax(0) - lost.amin(0) + 1).tolist() == [128, 128]
        assert lost.min() >= 32 and lost.max() < 224


def test_the_lost_box_keeps_its_margin_and_its_range():
    """All places and sizes occur, and none beyond."""
    lost = [torch.nonzero(Inpainting(12, "box", [3, 5], margin=2, seed=seed).mask == 0) for seed in range(60)]
    sides = {tuple((box.amax(0) - box.amin(0) + 1).tolist()) for box in lost}
    assert sides == {(3, 3), (3, 4), (4, 3), (4, 4)}
    assert {box.min().item() for box in lost} >= {2, 3} and min(box.min() for box in lost) == 2
    assert max(box.max() for box in lost) == 8  # a corner is drawn below 12 - 2 - side


def test_random_mask_loses_the_stated_share():
    assert (Inpainting(256, "random", mask_prob_range=[0.7, 0.71]).mask == 0).float().mean() == pytest.approx(0.705, abs=0.006)


def test_phase_retrieval_cannot_tell_a_rotated_image():
    x = 2 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    operator = PhaseRetrieval()
    torch.testing.assert_close(operator(torch.flip(x, (-2, -1))), operator(x), rtol=1e-9, atol=1e-9)
    assert operator.rotation_ambiguity


def test_deepinv_and_ours_agree_where_both_have_the_operator():
    deepinv = pytest.importorskip("deepinv")
    x = 2 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    unit = 0.5 * x + 0.5
    mask = Inpainting(32, "random", mask_prob_range=[0.7, 0.71])
    theirs = deepinv.physics.Inpainting(img_size=(3, 32, 32), mask=mask.mask.expand(3, 32, 32))
    torch.testing.assert_close(theirs.A(x), mask(x))
    blur = GaussianBlur(15, 1.5)
    kernel = blur.kernel0 * blur.kernel1
    theirs = deepinv.physics.Blur(filter=kernel, padding="reflect")
    torch.testing.assert_close(2 * theirs.A(unit) - 1, blur(x), rtol=1e-4, atol=1e-5)


def task_configs():
    files = sorted((PROJECT / "configs" / "task").glob("*.yaml"))
    return [(f.stem, group) for f in files for group in OmegaConf.load(f)]


@pytest.mark.heavy
@pytest.mark.parametrize("task, group", task_configs())
def test_every_task_group_composes_and_builds_its_operator(task, group):
    side = 64 if group.startswith("demo_") else 256
    cfg = runs.config([f"task={task}", f"task_group={group}", f"data.resolution={side}"])
    if task in ("nonlinear_blur", "deepinv"):
        pytest.skip("needs a file or a package that is not shipped")
    container = OmegaConf.to_container(cfg.task[group].operator, resolve=True)
    target = container.pop("_target_")
    check_operator("operator", target, container, side)
    operator = instantiate(cfg.task[group].operator)
    assert operator.sigma == {"sd": 0.01, "demo_low_noise": 0.0125}.get(group, 0.05)
    assert torch.isfinite(operator(torch.zeros(1, 3, side, side))).all()


def test_every_task_has_the_groups_of_both_public_model_families():
    groups = {}
    for task, group in task_configs():
        groups.setdefault(task, set()).add(group)
    assert all({"ldm", "sd"} <= names for names in groups.values())
    assert all("ldm_langevin" in names for task, names in groups.items() if task != "deepinv")


@pytest.mark.heavy
@pytest.mark.parametrize(
    "task, overrides, word",
    [
        ("inpainting", ["operator.mask_len_range=[60,70]"], "mask_len_range"),
        ("inpainting", ["operator.mask_type=blob"], "mask_type=blob"),
        ("inpainting_rand", ["operator.mask_prob_range=[0.9,0.2]"], "mask_prob_range"),
        ("down_sampling", ["operator.scale_factor=1"], "scale_factor=1"),
        ("down_sampling", ["+operator.factor=2"], "factor"),
        ("gaussian_blur", ["operator.kernel_size=14"], "kernel_size=14"),
        ("gaussian_blur", ["operator.kernel_size=129"], "kernel_size=129"),
        ("motion_blur", ["operator.intensity=2"], "intensity=2"),
        ("hdr", ["operator.scale=-1"], "scale=-1"),
        ("inpainting_rand", ["operator.resolution=32"], "resolution=32"),
        ("hdr", ["operator.sigma=-1"], "sigma=-1"),
        ("hdr", ["operator._target_=operators.nothing.X"], "operators.nothing.X"),
    ],
)
def test_wrong_operator_arguments_are_one_line_naming_the_key(task, overrides, word):
    changed = [o.replace("operator.", "task.demo_langevin.operator.") for o in overrides]
    cfg = runs.config([f"task={task}", *changed])
    container = OmegaConf.to_container(cfg.task.demo_langevin.operator, resolve=True)
    with pytest.raises(InputError) as caught:
        check_operator("task.demo_langevin.operator", container.pop("_target_"), container, 64)
    assert word in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("task.demo_langevin.operator.")


def test_the_argument_table_names_existing_operators():
    for target in OURS:
        module, _, name = target.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
