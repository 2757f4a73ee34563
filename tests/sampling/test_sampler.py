"""The contracts of the annealing loop: batching, keyed noise, counted passes, isolated failures."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from operators.phase_retrieval import PhaseRetrieval
from sampler import LatentDAPS
from tests.worlds import analytic
from tests.worlds.analytic import MIXTURE, PoisonedNoise
from utils.noise import KeyedNoise
from utils.sampling.mechanism import Mechanism
from utils.sampling.particles import Particles
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import ode_sigmas

CPU = torch.device("cpu")
CHAIN = dict(
    mc_algo="langevin",
    num_steps=3,
    lr=1e-4,
    lr_min_ratio=0.1,
    tau=0.01,
    momentum=0.3,
    keep_velocity=False,
    likelihood_factor=1.0,
    gradient_clip=1.0,
)


@pytest.fixture(scope="module")
def network_prior_float64(tiny_prior):
    from utils.priors.latent_diffusion import load_pipeline

    return load_pipeline(tiny_prior, CPU, dtype=torch.float64)


def run_network(prior, images=(0,), count=4, first=0, noise=None, on_step=lambda info: None, **chain):
    """Phase retrieval of random images on the tiny network prior, 4 annealing steps; (result, profiler)."""
    operator = PhaseRetrieval()
    settings = SimpleNamespace(**{**CHAIN, **chain})
    loop = LatentDAPS(
        prior,
        operator,
        noise or KeyedNoise(42),
        SimpleNamespace(num_steps=4, sigma_max=10.0, sigma_min=0.1),
        SimpleNamespace(num_steps=2, sigma_min=0.001, final_sigma=0.0),
        settings,
    )
    y = torch.cat([operator(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(i)) * 2 - 1) for i in images]).to(
        prior.dtype
    )
    particles = Particles.start(y, list(images), count, first, prior.latent_shape, prior.dtype)
    profiler = Profiler(CPU)
    return loop.sample(particles, profiler, on_step), profiler


def analytic_latents(images=(0,), count=4, first=0):
    """(P, 2) latents of a float64 run."""
    particles = analytic.start(MIXTURE, [0.3, 0.1, -0.2], count, images, first)
    return analytic.sampler(MIXTURE, seed=42).sample(particles, Profiler(CPU)).particles.z.flatten(1)


def test_four_particles_equal_four_single_runs_in_float64():
    together = analytic_latents()
    alone = torch.cat([analytic_latents(count=1, first=k) for k in range(4)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)


@pytest.mark.heavy
def test_ten_images_equal_ten_single_images_in_float64():
    images = list(range(10, 20))
    together = analytic_latents(images, count=2)
    alone = torch.cat([analytic_latents([i], count=2) for i in images])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "chain",
    [dict(mc_algo="langevin"), dict(mc_algo="hmc"), dict(mc_algo="hmc", keep_velocity=True)],
    ids=["langevin", "hmc", "velocity kept"],
)
def test_four_particles_equal_four_single_runs_on_a_network(network_prior_float64, chain):
    prior = network_prior_float64
    together = run_network(prior, **chain)[0].particles.z
    alone = torch.cat([run_network(prior, count=1, first=k, **chain)[0].particles.z for k in range(4)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)
    assert (together[0] - together[1]).abs().max() > 0.1  # while particles differ


@pytest.mark.heavy
def test_float32_passes_of_another_size_give_the_same_numbers_over_a_short_run(network_prior):
    """Other batch sizes pick other convolution kernels; one annealing step of one iteration shows no more than that."""

    def one_step(**kwargs):
        seen = []
        run_network(network_prior, on_step=seen.append, num_steps=1, **kwargs)
        return seen[0].particles.z

    alone = torch.cat([one_step(count=1, first=k) for k in range(4)])
    torch.testing.assert_close(alone, one_step(), rtol=1e-5, atol=1e-4)


@pytest.mark.heavy
def test_same_pass_size_same_bits(network_prior):
    first, again = (run_network(network_prior, images=(3, 5))[0] for _ in range(2))
    assert torch.equal(first.particles.z, again.particles.z) and torch.equal(first.image, again.image)


@pytest.mark.heavy
@pytest.mark.parametrize("images, count", [((0,), 4), ((0, 1, 2), 2)])
def test_passes_follow_the_formula(network_prior, images, count):
    _, profiler = run_network(network_prior, images=images, count=count)
    phase = profiler.phases["sampling"]
    assert (phase.steps, len(profiler.step_s)) == (4, 4)
    assert phase.decoder_forward_backward == 4 * 3  # annealing steps x inner iterations, per particle
    assert phase.decoder_forward == 1  # the result
    assert phase.denoiser_calls == 4 * 2  # annealing steps x Euler steps
    assert phase.peak_mb > 0


@pytest.mark.heavy
@pytest.mark.parametrize("images", [(0,), (0, 1, 2)])
def test_decoder_calls_do_not_grow_with_the_batch(network_prior, images, monkeypatch):
    """Counted at the network itself, independently of the profiler."""
    calls = {"decode": 0, "unet": 0}
    decode, unet = network_prior.autoencoder.decode, network_prior.unet.forward
    monkeypatch.setattr(
        network_prior.autoencoder, "decode", lambda z: (calls.__setitem__("decode", calls["decode"] + 1), decode(z))[1]
    )
    monkeypatch.setattr(
        network_prior.unet, "forward", lambda *a, **k: (calls.__setitem__("unet", calls["unet"] + 1), unet(*a, **k))[1]
    )
    run_network(network_prior, images=images)
    assert calls == {"decode": 4 * 3 + 1 + 1, "unet": 4 * 2}  # inner iterations, the result, the memory probe


@pytest.mark.heavy
def test_no_gradient_is_kept_and_weights_get_none(network_prior):
    result, _ = run_network(network_prior)
    assert not result.particles.z.requires_grad and not result.image.requires_grad
    assert all(p.grad is None and not p.requires_grad for p in network_prior.autoencoder.parameters())


@pytest.mark.heavy
def test_a_non_finite_particle_leaves_the_others_untouched(network_prior):
    healthy = run_network(network_prior)[0]
    result, _ = run_network(network_prior, noise=PoisonedNoise(42))
    keep = torch.tensor([0, 2, 3])
    assert torch.equal(result.particles.z[keep], healthy.particles.z[keep])
    assert torch.equal(result.image[keep], healthy.image[keep])
    assert not torch.isfinite(result.particles.z[1]).any()
    distances = result.particles.mean_pairwise_distance()
    expected = healthy.particles.select(keep).mean_pairwise_distance()
    torch.testing.assert_close(distances, expected)


class CountSynchronisations(TorchDispatchMode):
    """Counts operations that make the host wait for the device."""

    NAMES = ("_local_scalar_dense", "is_nonzero", "aten.equal", "aten.nonzero")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in self.NAMES):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def test_inner_iterations_never_wait_for_the_device(network_prior):
    operator = PhaseRetrieval()
    loop = LatentDAPS(
        network_prior,
        operator,
        KeyedNoise(0),
        SimpleNamespace(num_steps=4, sigma_max=10.0, sigma_min=0.1),
        SimpleNamespace(num_steps=2, sigma_min=0.001, final_sigma=0.0),
        SimpleNamespace(**CHAIN),
    )
    particles = Particles.start(torch.ones(1, 3, 24, 24), [0], 2, 0, network_prior.latent_shape, torch.float32)
    scalars = loop.scalars(0)
    with CountSynchronisations() as mode, torch.no_grad():
        loop.inner_chain(particles, torch.zeros(2, 4, 8, 8), scalars)
        assert mode.seen == []
        torch.ones(1).item()
        assert len(mode.seen) == 1  # the counter does see a synchronisation


def test_select_slices_everything():
    particles = Particles.start(torch.arange(3.0)[:, None], [7, 8, 9], 2, 4, (1, 2, 2), torch.float32)
    particles.z = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    kept = particles.select(torch.tensor([1, 4]))
    assert len(kept) == 2
    assert kept.image.tolist() == [7, 9] and kept.index.tolist() == [5, 4]
    assert kept.y.flatten().tolist() == [0.0, 2.0] and kept.z[:, 0, 0, 0].tolist() == [1.0, 4.0]


def test_mean_pairwise_distance_stays_within_an_image():
    particles = Particles.start(torch.zeros(2, 1), [5, 6], 3, 0, (1, 1, 2), torch.float64)
    z = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [100.0, 0.0], [100.0, 1.0], [100.0, 2.0]], dtype=torch.float64)
    distance = particles.at(z.view(6, 1, 1, 2)).mean_pairwise_distance()
    torch.testing.assert_close(distance, torch.tensor([10 / 3, 4 / 3], dtype=torch.float64))


class Seen(KeyedNoise):
    """Noise that remembers what was drawn."""

    def __init__(self, seed):
        super().__init__(seed)
        self.keys = []

    def draw(self, particles, purpose, step=0, count=None):
        self.keys.append((purpose, step))
        return super().draw(particles, purpose, step, count)


def test_each_draw_has_a_key_of_its_own_that_names_its_purpose():
    noise, steps = Seen(42), range(analytic.ANNEALING.num_steps)
    loop = analytic.sampler(MIXTURE, analytic.chain(mc_algo="hmc", momentum=0.5))
    loop.noise = noise
    loop.sample(analytic.start(MIXTURE, [0.3, 0.1, -0.2], 1), Profiler(CPU))
    expected = [(purpose, step) for step in steps for purpose in ("mcmc", "velocity", "annealing")]
    assert sorted(noise.keys) == sorted([("initial", 0), *expected])


def test_the_result_is_of_the_final_latents():
    """The last chain iteration decoded the latents before its step: its loss would pick another particle."""
    seen = []
    particles = analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4)
    loop = analytic.sampler(MIXTURE, seed=42)
    result = loop.sample(particles, Profiler(CPU), seen.append)
    image = MIXTURE.decode(result.particles.z)
    assert torch.equal(result.image, image)
    assert torch.equal(result.loss, (image - particles.y).square().flatten(1).sum(1))
    assert (result.loss - seen[-1].loss).abs().min() > 1e-3


def test_the_final_latents_may_be_denoised_once_more():
    def run(final_sigma):
        diffusion = SimpleNamespace(**{**vars(analytic.DIFFUSION), "final_sigma": final_sigma})
        loop, profiler = analytic.sampler(MIXTURE, diffusion=diffusion, seed=42), Profiler(CPU)
        result = loop.sample(analytic.start(MIXTURE, [0.3, 0.1, -0.2], 4), profiler)
        return result, profiler.phases["sampling"].denoiser_calls

    (plain, calls), (denoised, more_calls) = run(0.0), run(0.5)
    z = MIXTURE.denoise(plain.particles.z, torch.tensor(0.5, dtype=MIXTURE.dtype))
    assert (z - plain.particles.z).abs().min() > 1e-3
    assert torch.equal(denoised.particles.z, z) and torch.equal(denoised.image, MIXTURE.decode(z))
    assert torch.equal(denoised.loss, (denoised.image - denoised.particles.y).square().flatten(1).sum(1))
    assert more_calls == calls + 1


def test_the_numbers_of_a_step_are_those_of_its_grids():
    annealing = SimpleNamespace(num_steps=5, sigma_max=5.0, sigma_min=0.2)
    loop = analytic.sampler(MIXTURE, analytic.chain(lr=0.06, lr_min_ratio=0.5), annealing)
    grid = [(5 ** (1 / 7) + i / 5 * (0.2 ** (1 / 7) - 5 ** (1 / 7))) ** 7 for i in range(5)] + [0.0]
    for step in range(5):
        s = loop.scalars(step)
        assert (s.sigma.item(), s.sigma_next.item()) == pytest.approx((grid[step], grid[step + 1]))
        assert s.lr.item() == pytest.approx(0.06 * (1 - 0.5 * step / 6))  # over N + 1
        assert [level.item() for level in s.ode] == pytest.approx(ode_sigmas(grid[step], 2, 0.01))


class Doubling(Mechanism):
    """Doubles z0hat and the particles."""

    name = "doubling"

    def acts(self, step):
        return step == 1

    def guide(self, z0hat, particles, s, sampler):
        return 2 * z0hat

    def after_chain(self, particles, s, sampler):
        return particles.at(2 * particles.z), {0: {"step": s.step}}


class Adding(Doubling):
    name = "adding"

    def guide(self, z0hat, particles, s, sampler):
        return z0hat + 1

    def after_chain(self, particles, s, sampler):
        return particles.at(particles.z + 1), {0: {"step": s.step}}


def test_mechanisms_act_in_their_order_on_what_the_ones_before_left():
    def one_step(mechanisms):
        """z0hat, z0y and z of annealing step 1 from the same particles."""
        loop = analytic.sampler(MIXTURE)
        loop.mechanisms, chain, starts = mechanisms, loop.inner_chain, []
        loop.inner_chain = lambda particles, z0hat, *rest: (starts.append(z0hat), chain(particles, z0hat, *rest))[1]
        particles = analytic.start(MIXTURE, [0.3, 0.1, -0.2], 2)
        after, info, reports = loop.annealing_step(particles.at(torch.ones_like(particles.z)), loop.scalars(1))
        noise = loop.scalars(1).sigma_next * loop.noise.draw(particles, "annealing", 1)
        return starts[0], info.particles.z, after.z - noise, reports

    plain, (z0hat, z0y, z, reports) = one_step(()), one_step((Doubling(), Adding()))
    torch.testing.assert_close(z0hat, 2 * plain[0] + 1)
    torch.testing.assert_close(z, 2 * z0y + 1)  # what the callback sees is before any of them
    assert reports == {"doubling": {0: {"step": 1}}, "adding": {0: {"step": 1}}}


@pytest.mark.heavy
def test_the_last_step_adds_no_noise(network_prior):
    seen = []
    result, _ = run_network(network_prior, on_step=seen.append)
    assert torch.equal(result.particles.z, seen[-1].particles.z)
    assert [info.step for info in seen] == [0, 1, 2, 3]


def test_epsilon_and_v_prediction_are_the_same_denoiser():
    """A network that knows the noise exactly, asked for epsilon and for v, must give back the clean latent."""
    from utils.priors.latent_diffusion import LatentDiffusionPrior
    from utils.priors.timesteps import TimestepMap

    z0, noise = torch.randn(2, 5, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0], dtype=torch.float64)
    column = sigma.view(-1, 1, 1, 1)
    signal = (1 + column**2) ** -0.5
    outputs = {"epsilon": noise, "v_prediction": signal * noise - signal * column * z0}
    for prediction, output in outputs.items():
        prior = LatentDiffusionPrior.__new__(LatentDiffusionPrior)
        prior.prediction_type, prior.context = prediction, None
        prior.dtype = prior.network_dtype = torch.float64
        prior.timestep_map = TimestepMap("trained", torch.linspace(0.99, 0.01, 1000))
        prior.unet = lambda x, t, output=output: SimpleNamespace(sample=output)
        torch.testing.assert_close(prior.denoise(z0 + column * noise, sigma), z0)


def test_the_loop_is_its_steps():
    """One annealing step can be called alone; the loop adds nothing to a chain of them."""
    loop = analytic.sampler(MIXTURE, seed=42)
    particles = analytic.start(MIXTURE, [0.3, 0.1, -0.2], 3, (0, 1))
    result = loop.sample(particles, Profiler(CPU))
    with torch.no_grad():
        particles = particles.at(loop.sigmas[0] * loop.noise.draw(particles, "initial"))
        for step in range(len(loop.sigmas) - 1):
            particles, info, reports = loop.annealing_step(particles, loop.scalars(step))
            assert info.step == step and reports == {}
    assert torch.equal(particles.z, result.particles.z)
