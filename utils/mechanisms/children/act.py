"""Children: what the pruning keeps branches into, and what then stands in its place.

At the pruning, from z0y, every kept particle becomes `children` children under noise of their own. With a noise level
`branch_sigma` they start further away: where the probability flow ends from z0y under noise of that level.

Idea: the bi-level tree of PROJECT.md, phase 2.
"""

from dataclasses import replace

import torch

from operators.base import Operator
from utils.mechanisms.children.plan import Tree
from utils.mechanisms.plan import Course, Settings
from utils.mechanisms.pruning.plan import PLAN as PRUNING
from utils.priors.base import LatentPrior
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock, ode_sigmas


def born(particles: Particles, count: int, first: int, sigma: float | None, s: StepScalars, sampler: Sampler) -> Particles:
    """`count` children of each particle, numbered from `first` on.

    Their velocity is their own, like that of the particles of a first step; sigma: the noise level under which they leave
    their parent, None for the annealing's own.
    """
    children = particles.branch(count, first)
    if sigma is not None:
        children.z = restarted(children, sigma, s, sampler)
    if children.velocity is not None:
        children = replace(children, velocity=sampler.noise.draw(children, "velocity", s.step + 1))
    return children


def restarted(particles: Particles, sigma: float, s: StepScalars, sampler: Sampler) -> torch.Tensor:
    """Where the probability flow ends from z0y under noise of `sigma`, (P, C, h, w)."""
    diffusion = sampler.diffusion
    levels = torch.tensor(ode_sigmas(sigma, diffusion.num_steps, diffusion.sigma_min), dtype=particles.z.dtype)
    noisy = particles.z + sigma * sampler.noise.draw(particles, "branch", s.step)
    return sampler.probability_flow(noisy, levels.to(particles.z.device).unbind())


def parents_of(children: Particles) -> Report:
    """Each child's parent, by their numbers."""
    report: Report = {}
    for image, index, parent in zip(*(t.tolist() for t in (children.image, children.index, children.parent))):
        report.setdefault(image, {"parent": {}})["parent"][str(index)] = parent
    return report


class Children(Mechanism):
    """Of one run.

    count: of each kept particle; settings: branch_sigma; step: the first annealing step in which they are there.
    Costs: with branch_sigma one probability flow of the children.
    """

    name = "children"
    needs_all = True

    def __init__(self, count: int, settings: Tree, step: int, clock: StepClock) -> None:
        self.count, self.settings, self.step, self.clock = count, settings, step, clock

    def acts(self, step: int) -> bool:
        return step == self.step - 1

    def newborn(self, step: int, present: int) -> int:
        return self.count * present

    def present_after(self, step: int, present: int) -> int:
        return self.newborn(step, present)

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        """The children of all particles, without these."""
        children = born(particles, self.count, self.first_newborn, self.settings.branch_sigma, s, sampler)
        return children, parents_of(children)

    def block(self, reports: list[dict], indices: range) -> dict | None:
        """Each child's parent, by their numbers, and that the parents are gone; None where it has not happened."""
        if not reports:
            return None
        return {"step_index": self.step, "timestep": self.clock.timestep(self.step), "stay": False, **reports[0]}


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Children:
    """Of a run."""
    birth = PRUNING.opening(s, course.clock)
    assert birth is not None
    return Children(s.children, s.tree, birth.step, course.clock)
