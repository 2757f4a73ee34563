"""The baselines in latent space: each against a plain reference for one particle, what it counts, and what is refused."""

import importlib

import numpy as np
import pytest
import torch

from operators.base import Operator
from operators.fidelity import WithFidelity
from operators.hdr import HighDynamicRange
from tests.worlds import runs
from tests.worlds.analytic import MIXTURE, start
from utils.algorithms.ddim import Level, ddim_alphas, norm
from utils.algorithms.ldps import LatentDPS
from utils.algorithms.psld import PSLD
from utils.algorithms.resample import ReSample, resampled
from utils.algorithms.resample_fair import FairReSample
from utils.config.check import check
from utils.config.operators import LINEAR, OURS
from utils.config.overrides import check_renamed
from utils.config.sections import Fidelity
from utils.errors import InputError
from utils.noise import KeyedNoise, keyed_normal
from utils.records.files import read_record
from utils.sampling.passes import Passes
from utils.sampling.profiler import Profiler

SEED, SIGMA, Y = 3, 0.3, [0.7, -0.4]
SCHEDULE = dict(num_steps=12, beta_start=0.0015, beta_end=0.0195)
RESAMPLE = dict(
    **SCHEDULE,
    guidance=0.5,
    resampling=40.0,
    every=2,  # of the indices 11 .. 0 they are 8, 6 and 4, in the pixels, and 2, in the latents
    pixel_iterations=80,
    pixel_rate=0.1,
    latent_iterations=300,
    latent_rate=0.2,  # so large that the loss rises again, and each particle stops when its own does
)
ALGORITHMS = {
    "ldps": (LatentDPS, dict(**SCHEDULE, omega=0.3)),
    "psld": (PSLD, dict(**SCHEDULE, omega=0.3, gamma=0.1)),
    "resample": (ReSample, RESAMPLE),
    "resample_fair": (FairReSample, RESAMPLE),
}


class Mixed(Operator):
    """y = M x, with a matrix that is neither square nor symmetric."""

    linear = True
    matrix = torch.tensor([[1.0, 0.5, -0.2], [0.1, -0.8, 0.6]], dtype=torch.float64)

    def forward(self, x):
        return torch.einsum("kd,pdhw->pkhw", self.matrix, x)


class Bent(Mixed):
    """What is not linear."""

    linear = False

    def forward(self, x):
        return super().forward(x + 0.3 * x.square())


def operator_of(name):
    return (Mixed if name == "psld" else Bent)(SIGMA)


def loop_of(name, passes=None, **changes):
    algorithm, settings = ALGORITHMS[name]
    return algorithm(MIXTURE, operator_of(name), KeyedNoise(SEED), passes, **{**settings, **changes})


def plain_schedule():
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    timesteps = [1000 * i // 12 - 1 for i in range(12, 0, -1)]
    return [alphas[t] for t in timesteps] + [alphas[0]]


def plain_noise(particle, purpose, step=0):
    return torch.from_numpy(keyed_normal(SEED, 0, particle, purpose, step, (2, 1, 1))).double()[None]


def plain_eps(z, a):
    return (z - a.sqrt() * MIXTURE.denoise(z / a.sqrt(), ((1 - a) / a).sqrt())) / (1 - a).sqrt()


def plain_ddim(z, eps, a, b):
    return b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps


def plain_guided(name, particle, y):
    """LDPS and PSLD as published, for one particle; A^T by its matrix."""
    omega, gamma, operator, matrix = 0.3, 0.1 if name == "psld" else 0.0, operator_of(name), Mixed.matrix
    alphas, z = plain_schedule(), plain_noise(particle, "initial")
    for a, b in zip(alphas, alphas[1:]):
        z = z.detach().requires_grad_()
        eps = plain_eps(z, a)
        z0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
        x = MIXTURE.decode(z0)
        error = omega * (y - operator(x)).norm()
        if gamma:
            column = x.flatten() + matrix.T @ y.flatten() - matrix.T @ matrix @ x.flatten()
            error = error + gamma * (MIXTURE.encode(column.view(1, 3, 1, 1)) - z0).norm()
        z = (plain_ddim(z, eps, a, b) - torch.autograd.grad(error, z)[0]).detach()
    return z


def plain_minimum(x, squared_error, rate, iterations, limit, patience, stops):
    """One particle's AdamW, with the stops of the published code: after a step, by the loss before it."""
    x = x.detach().clone().requires_grad_()
    optimiser, losses = torch.optim.AdamW([x], lr=rate), []
    for i in range(iterations):
        optimiser.zero_grad()
        loss = squared_error(x)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if losses[-1] < limit or (patience and i >= patience and losses[i - patience] < losses[-1]):
            break
    stops.append(len(losses))
    return x.detach()


def plain_resample(name, particle, y, stops):
    """ReSample's loop for one particle, as coded or with Tweedie's formula and the noise's level."""
    fair, operator, n = name == "resample_fair", operator_of(name), 12
    limit, mse = SIGMA**2 if fair else 1e-6, torch.nn.MSELoss()

    def pseudo(z, eps, a):
        return (z - ((1 - a).sqrt() if fair else 1 - a) * eps) / a.sqrt()

    def latents(z):
        return plain_minimum(z, lambda z: mse(y, operator(MIXTURE.decode(z))), 0.2, 300, limit, 200, stops)

    alphas, z = plain_schedule(), plain_noise(particle, "initial")
    for step in range(n):
        index, a, b = n - 1 - step, alphas[step], alphas[step + 1]
        z = z.detach().requires_grad_()
        eps = plain_eps(z, a)
        error = (y - operator(MIXTURE.decode(pseudo(z, eps, a)))).norm()
        z = (plain_ddim(z, eps, a, b) - 0.5 * a * torch.autograd.grad(error, z)[0]).detach()
        if 0 < index <= n - n // 3 and index % 2 == 0:
            travelling = z
            for k in range(step, min(step + 5, n - 1)):
                eps, level = plain_eps(travelling, alphas[k + 1]), k + 1 if fair else k
                z0 = pseudo(travelling, eps, alphas[level])
                travelling = plain_ddim(travelling, eps, alphas[level], alphas[level + 1])
            if index >= n // 3:
                x = plain_minimum(MIXTURE.decode(z0), lambda x: mse(y, operator(x)), 0.1, 80, limit, 0, stops)
                z0 = MIXTURE.encode(x)
            else:
                z0 = latents(z0)
            s = 40 * (1 - b) / (1 - a) * (1 - a / b)
            mean = (s * b.sqrt() * z0 + (1 - b) * z) / (s + 1 - b)
            z = mean + (1 / (1 / s + 1 / (1 - b))).sqrt() * plain_noise(particle, "annealing", step)
    return latents(z)


@pytest.mark.parametrize("name", ["ldps", "psld"])
def test_guided_steps_are_those_of_the_plain_reference(name):
    loop, seen, profiler = loop_of(name), [], Profiler(MIXTURE.device)
    particles = start(MIXTURE, Y, 3)
    result = loop.sample(particles, profiler, seen.append)
    plain = torch.cat([plain_guided(name, k, particles.y[:1]) for k in range(3)])
    torch.testing.assert_close(result.particles.z, plain, rtol=0, atol=1e-9)
    assert [info.step for info in seen] == list(range(12))
    torch.testing.assert_close(seen[-1].loss, loop.operator.loss(MIXTURE.decode(seen[-1].particles.z), particles.y))
    phase = profiler.phases["sampling"]  # of one particle; the last image is decoded once more
    assert (phase.decoder_forward_backward, phase.denoiser_calls, phase.decoder_forward) == (12, 12, 1)
    assert phase.encoder_forward == 12 * (name == "psld") and len(profiler.step_s) == 12


@pytest.mark.parametrize(
    "name, y",
    [("resample", [3.0, -3.0]), ("resample_fair", [3.0, -3.0]), ("resample", [-8.0, 9.0])],
    ids=["coded", "fair", "unreachable"],  # at the last only the rising loss stops the latents
)
def test_resample_is_the_plain_reference_and_counts_its_passes(name, y):
    loop, profiler, stops = loop_of(name), Profiler(MIXTURE.device), []
    particles = start(MIXTURE, y, 3)
    result = loop.sample(particles, profiler)
    plain = torch.cat([plain_resample(name, k, particles.y[:1], stops) for k in range(3)])
    torch.testing.assert_close(result.particles.z, plain, rtol=0, atol=1e-9)
    *_, in_latents, at_the_end = np.array(stops).reshape(3, 5).T
    assert len({*in_latents, *at_the_end}) > 3 and at_the_end.min() < 300, "particles must stop at iterations of their own"
    phase = profiler.phases["sampling"]
    assert phase.decoder_forward_backward == pytest.approx(12 + (in_latents + at_the_end).mean())
    assert phase.denoiser_calls == 12 + 5 + 5 + 4 + 2  # up to five more steps at each index
    assert (phase.decoder_forward, phase.encoder_forward) == (4, 3)


def test_an_optimisation_within_a_step_is_told_of_now_and_then():
    """So that the bar moves; such a run within the run is no step."""
    seen = []
    loop_of("resample_fair").sample(start(MIXTURE, [-8.0, 9.0], 3), on_step=seen.append)
    steps, within = ([info for info in seen if (info.level is None) == is_step] for is_step in (True, False))
    assert [info.step for info in steps] == list(range(12))
    assert {info.level for info in within} == {"optimisation"} and {(info.step + 1) % 20 for info in within} == {0}
    assert len(within) >= 3 * 80 // 20 + 2 * 200 // 20  # three in the pixels, and two in the latents, until patience ends
    for info in within:
        torch.testing.assert_close(info.loss, loop_of("resample").operator.loss(info.image, info.particles.y))
    since = seen.index(steps[-1])
    assert [info.step for info in seen[since + 1 :]][:3] == [19, 39, 59], "the optimisation at the end is told of too"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_particle_alone_is_that_of_the_batch(name):
    """Beside other particles and another image, of which less was measured; and in passes of any size."""
    both = start(MIXTURE, Y, 3, image_ids=(0, 5))
    both.y[3:] = torch.tensor([2.0, torch.nan], dtype=torch.float64).view(1, 2, 1, 1)
    one = both.select(torch.tensor([4]))
    short = dict(latent_iterations=30) if "resample" in name else {}
    kinds = ((None, both), (Passes(2), both), (None, one))
    batch, parts, alone = (loop_of(name, passes, **short).sample(particles) for passes, particles in kinds)
    torch.testing.assert_close(parts.particles.z, batch.particles.z, rtol=0, atol=1e-9)
    torch.testing.assert_close(alone.particles.z, batch.particles.z[4:5], rtol=0, atol=1e-9)
    assert torch.isfinite(batch.particles.z).all()


def test_resampling_draws_from_the_product_of_its_two_gaussians():
    """N(sqrt(a') z0, 1 - a') times N(z', s): precisions add up, and means are weighted by them."""
    a, b, n = 0.3, 0.35, 200_000
    z0, z = torch.tensor([1.5, -2.0]).double(), torch.tensor([-0.5, 0.4]).double()
    noise = torch.from_numpy(keyed_normal(SEED, 0, 0, "annealing", 0, (n, 2))).double()
    level, then = (Level(torch.tensor(x).double().sqrt(), torch.tensor(1 - x).double().sqrt()) for x in (a, b))
    drawn = resampled(z0, z, level, then, 40.0, noise)
    s = 40 * (1 - b) / (1 - a) * (1 - a / b)
    variance = 1 / (1 / (1 - b) + 1 / s)
    mean = variance * (b**0.5 * z0 / (1 - b) + z / s)
    assert ((drawn.mean(0) - mean).abs() < 4 * (variance / n) ** 0.5).all()
    assert ((drawn.var(0) - variance).abs() < 4 * variance * (2 / n) ** 0.5).all()


def test_the_levels_are_those_of_a_ddim_scheduler():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    alphas, known = ddim_alphas(500, 0.0015, 0.0195), scheduler.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(alphas, [*known[999::-2], known[0]], rtol=1e-4)
    assert len(ddim_alphas(7, 0.0015, 0.0195)) == 8 and (np.diff(ddim_alphas(1000, 0.0015, 0.0195)) >= 0).all()


def test_the_norm_of_nothing_has_a_gradient_of_zero():
    residual = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    lengths = norm(residual.square().sum(1))
    (gradient,) = torch.autograd.grad(lengths.sum(), residual)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))


def test_what_is_linear_says_so():
    """The names that the config check knows are those of the classes that have a transpose."""
    classes = {name: getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in OURS}
    assert {name for name, kind in classes.items() if kind.linear} == set(LINEAR)


@pytest.mark.parametrize("wrapped", [False, True])
def test_psld_refuses_an_operator_of_ones_own_that_is_not_linear(wrapped):
    operator = HighDynamicRange(2.0, 0.05)
    if wrapped:
        operator = WithFidelity(operator, Fidelity())
    with pytest.raises(InputError, match="sampler=psld: HighDynamicRange is not linear"):
        PSLD(MIXTURE, operator, KeyedNoise(0), **SCHEDULE, omega=1.0, gamma=0.1)


@pytest.fixture
def baseline(composed, tiny, tmp_path, monkeypatch):
    """baseline(name, *overrides) -> (folder, metrics) of a tiny run of two images."""
    import posterior_sample

    def go(name, *overrides):
        kept = [text for text in tiny if not text.startswith(("sampler.", "task."))]
        cfg = composed(*kept, f"sampler={name}", "task=down_sampling", "sampler.num_steps=6", *overrides)
        with monkeypatch.context() as patch:
            runs.without_pictures(patch)
            posterior_sample.run(cfg)
        folder = tmp_path / "results" / cfg.name
        return folder, runs.metrics_of(folder)

    return go


@pytest.mark.program
@pytest.mark.parametrize("name", ALGORITHMS)
def test_through_the_program_a_particle_alone_is_that_of_the_batch(baseline, name):
    short = ("sampler.every=1", "sampler.pixel_iterations=3", "sampler.latent_iterations=2") * name.startswith("resample")
    folder, metrics = baseline(name, "name=batch", "batch_images=2", *short)
    phase = metrics["time"]["phases"]["sampling"]
    resampling = name.startswith("resample")  # indices 4, 3, 2 in the pixels, 1 in the latents, and the end
    assert phase["decoder_forward_backward"] == 6 + 4 * resampling
    assert phase["denoiser_calls"] == 6 + (4 + 3 + 2 + 1) * resampling
    assert len(read_record(folder / "records" / "00000.npz")[0]["trace"]["loss"]) == 6
    single, _ = baseline(name, "name=single", "num_samples=1", "first_particle=2", "data.start_id=1", *short)
    one, of_batch = (read_record(f / "records" / "00001.npz")[1]["z"] for f in (single, folder))
    np.testing.assert_allclose(one[0], of_batch[2], rtol=0, atol=2e-3 * np.abs(of_batch).max())


def test_keys_are_their_own_and_not_what_daps_calls_otherwise():
    check_renamed(["sampler=ldps", "sampler.num_steps=3"])
    with pytest.raises(InputError, match="write sampler.annealing_scheduler_config.num_steps=3"):
        check_renamed(["sampler=fast", "sampler.num_steps=3"])


NAMES = {
    "ldps": "utils.algorithms.ldps.LatentDPS",
    "psld": "utils.algorithms.psld.PSLD",
    "resample": "utils.algorithms.resample.ReSample",
    "resample_fair": "utils.algorithms.resample_fair.FairReSample",
}
SCHEDULES = (
    "num_steps=0",
    "num_steps=1001",
    "num_steps=2.5",
    "beta_start=0",
    "beta_start=0.2",
    "beta_end=0.2",
    "beta_end=0.001",
)
OF_RESAMPLE = (
    *("guidance=-1", "guidance=nan", "resampling=0", "resampling=1e13", "every=0", "every=1001"),
    *("pixel_iterations=-1", "pixel_rate=0", "latent_iterations=-1", "latent_iterations=100001", "latent_rate=-0.1"),
)
OWN = {
    "ldps": ("omega=-0.1", "omega=inf", "omega=null"),
    "psld": ("omega=-1", "gamma=-0.1", "gamma=1e13"),
    "resample": OF_RESAMPLE,
    "resample_fair": OF_RESAMPLE,
}


@pytest.mark.parametrize("name, text", [(name, text) for name in OWN for text in (*SCHEDULES, *OWN[name])])
def test_a_key_out_of_range_is_one_line_before_torch(composed, name, text):
    key = text.partition("=")[0]
    with pytest.raises(InputError) as caught:
        check(composed(f"sampler={name}", "task=down_sampling", f"sampler.{text}"))
    assert str(caught.value).startswith(f"sampler.{key}=") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "override, message",
    [
        *((f"{switch}", f"{switch}: sampler._target_={{target}} is another algorithm") for switch in (
            "pruning_step=500", "repulsion_scale=0.1", "optimization_step=200", "recombination_step=500"
        )),
        ("start.bank=2", "start.bank=2: sampler._target_={target} is another algorithm"),
        ("polish.keep=2", "polish.keep=2: sampler._target_={target} is another algorithm"),
        ("temperature=1", "temperature=1.0: sampler._target_={target} is another algorithm"),
        ("+sampler.speed=1", "sampler.speed=1: "),
    ],
)  # fmt: skip
def test_a_mechanism_and_an_unknown_key_are_refused(composed, name, override, message):
    with pytest.raises(InputError) as caught:
        check(composed(f"sampler={name}", "task=down_sampling", override))
    assert str(caught.value).startswith(message.format(target=NAMES[name])) and "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["phase_retrieval", "hdr", "nonlinear_blur", "deepinv"])
def test_psld_refuses_a_task_that_is_not_linear(composed, task):
    with pytest.raises(InputError) as caught:
        check(
            composed(
                "sampler=psld", f"task={task}", "task_group=ldm" if task == "nonlinear_blur" else "task_group=demo_langevin"
            )
        )
    assert str(caught.value).startswith("sampler=psld: operators.") and "is not linear; choose a task with" in str(caught.value)
    assert "\n" not in str(caught.value)
