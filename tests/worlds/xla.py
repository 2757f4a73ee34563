"""Short runs on the tiny random prior, on any device: phase retrieval of random images."""

from types import SimpleNamespace

import torch

from operators.fidelity import WithFidelity
from operators.phase_retrieval import PhaseRetrieval
from sampler import LatentDAPS
from utils.config.sections import Fidelity
from utils.evaluation.trace import Trace
from utils.mechanisms.children.act import Children
from utils.mechanisms.optimization.act import HardDataConsistency
from utils.mechanisms.pruning.act import Pruning
from utils.mechanisms.recombination.act import Recombination
from utils.mechanisms.repulsion.act import Repulsion
from utils.noise import KeyedNoise
from utils.priors.latent_diffusion import load_pipeline
from utils.running.build import own_terms
from utils.sampling.mechanism import census
from utils.sampling.particles import Particles
from utils.sampling.passes import Passes
from utils.sampling.profiler import Profiler
from utils.sampling.schedule import StepClock, annealing_sigmas

# The official rate of latent diffusion models. A tiny random decoder makes larger ones unstable: at 7e-5 the CPU's own
# float32 is 1e-3 away from float64, and so would every other arithmetic be.
CHAIN = SimpleNamespace(
    mc_algo="langevin",
    num_steps=3,
    lr=2.1e-5,
    lr_min_ratio=0.12,
    tau=0.01,
    momentum=0.41,
    keep_velocity=False,
    likelihood_factor=1.0,
    gradient_clip=1.0,
)
REPULSION = SimpleNamespace(decay="linear", end_step=400, bandwidth=1.0, place="drift", similarity="rotation")
# whatever is behind the best is bad, so that something is exchanged
RECOMBINATION = SimpleNamespace(every=1, excess=0.0, deviation=0.0, turns=True, donors=True, sigmas=[0.5, 1.0])
PRUNING = SimpleNamespace(near_distance=0.5, loss_tolerance=1.0, fill="next_best")
OPTIMIZATION = SimpleNamespace(max_iterations=3, lr=5e-3, stop_factor=1.0, max_move=0.1)


class World:
    """A prior on a device, loaded once, and runs with it."""

    def __init__(self, folder, device, dtype=torch.float32):
        self.device, self.prior = device, load_pipeline(folder, device, dtype=dtype)

    def run(
        self,
        image=0,
        steps=3,
        inner=3,
        repulsion_scale=0.0,
        pruning_step=-1,
        optimization_step=-1,
        recombination_step=-1,
        children=0,
        branch_sigma=None,
        every=1,
        place=REPULSION.place,
        algorithm="langevin",
        lr=CHAIN.lr,
        count=4,
        keep=2,
        lost=0.0,
        fidelity=None,
        passes=None,
        final_sigma=0.0,
        own=(),
        on_step=lambda info: None,
    ):
        """(result, profiler) of one image, or a batch of some, with `count` particles each, `keep` after a pruning.

        lost: share of the measurement's pixels that are missing, other ones in each image; fidelity: keys of the data term;
        own: further mechanisms, each made of the clock, which act last
        """
        annealing = SimpleNamespace(num_steps=steps, sigma_max=10.0, sigma_min=0.1)
        clock = StepClock(annealing_sigmas(steps, annealing.sigma_max, annealing.sigma_min))
        pruned, optimised = (clock.first_step(t) if t >= 0 else None for t in (pruning_step, optimization_step))
        search_end = min((step for step in (pruned, optimised) if step is not None), default=steps)
        repelled = min(clock.first_step(REPULSION.end_step), search_end)
        operator = PhaseRetrieval()
        if fidelity is not None:
            settings = Fidelity(**fidelity)
            operator = WithFidelity(operator, settings, own_terms(settings, operator.sigma))
        operator = operator.to(self.device)
        repulsion = SimpleNamespace(**{**vars(REPULSION), "place": place})
        mechanisms = [
            *([Repulsion(repulsion_scale, repulsion, clock, repelled, search_end)] if repulsion_scale else []),
            *([Recombination(recombination_step, RECOMBINATION, clock, operator)] if recombination_step >= 0 else []),
            *([Pruning(keep, PRUNING, pruned, clock)] if pruning_step >= 0 else []),
            *([Children(children, SimpleNamespace(branch_sigma=branch_sigma), pruned, clock)] if children else []),
            *(
                [HardDataConsistency(SimpleNamespace(**vars(OPTIMIZATION), every=every), optimised, clock)]
                if optimization_step >= 0
                else []
            ),
            *(make(clock) for make in own),
        ]
        census(mechanisms, 0, count, count, steps)
        diffusion = SimpleNamespace(num_steps=2, sigma_min=0.001, final_sigma=final_sigma)
        chain = SimpleNamespace(**{**vars(CHAIN), "num_steps": inner, "mc_algo": algorithm, "lr": lr})
        loop = LatentDAPS(
            self.prior,
            operator,
            KeyedNoise(42),
            annealing,
            diffusion,
            chain,
            mechanisms,
            Passes(passes),
        )
        images, truths, y = [image] if isinstance(image, int) else list(image), {}, []
        for each in images:
            generator = torch.Generator().manual_seed(each)
            truths[each] = (torch.rand(3, 16, 16, generator=generator) * 2 - 1).to(self.prior.dtype).to(self.device)
            clean = operator(truths[each][None])
            missing = (torch.rand(clean.shape, generator=generator) < lost).to(self.device)
            y.append(torch.where(missing, torch.nan, clean) if lost else clean)
        particles = Particles.start(torch.cat(y), images, count, 0, self.prior.latent_shape, self.prior.dtype)
        trace, profiler = Trace(truths), Profiler(self.device)

        def both(info):
            trace(info)
            on_step(info)

        return loop.sample(particles, profiler, both), profiler
