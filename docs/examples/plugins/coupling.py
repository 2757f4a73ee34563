"""Coupled families: what the pruning keeps has children, stays beside them, and parents and children draw each other.

    python posterior_sample.py --config-dir docs/examples/plugins experiment=coupling

At the pruning, from z0y, every particle that is kept gets `children` children under noise of their own and stays, as the
coarser level. In each later step z0hat moves, before the chain, by the share s:

    down   z_p <- z_p + s (sum_c w_c z_c - z_p)    parents to their children's weighted mean, the children detached
    up     z_c <- z_c + s (z_p - z_c)              children to what their parent expects of them, the parent detached
    w_c    = exp(-(L_c - L) / S) / (the same summed over the parent's children)

L_c: measurement loss of child c at z0hat; L: the smallest of its parent's children; S = max(L - F, std): how far that
one is from the noise floor F, at least the floor's standard deviation, so that a child of twice the best one's excess
weighs 1/e. The steps that are left make one V: first down, up at the end; in between the chains alone act.

Idea: the bi-level tree of PROJECT.md, phase 2; the V is that of multigrid solvers. The formulas are ours. Measured:
docs/research/measured/children.md.
"""

from typing import Literal, NamedTuple

import torch

from operators.base import column
from utils.errors import InputError
from utils.mechanisms.children.act import born, parents_of
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock


class Family(NamedTuple):
    """Who descends from whom: positions of K children and of their parents, (K,) int64."""

    child: torch.Tensor
    parent: torch.Tensor


def family_of(particles: Particles) -> Family:
    """The pairs of which both are there, on the CPU. Raises InputError where a child is not one level below its parent."""
    same_image = particles.image[:, None] == particles.image[None]
    child, parent = torch.nonzero(same_image & (particles.parent[:, None] == particles.index[None]), as_tuple=True)
    wrong = torch.nonzero(particles.level[child] != particles.level[parent] + 1).flatten()
    if len(wrong):
        c, p = int(child[wrong[0]]), int(parent[wrong[0]])
        raise InputError(
            f"level={int(particles.level[c])}: particle {int(particles.index[c])} is a child of particle "
            f"{int(particles.index[p])} of level {int(particles.level[p])}; let Particles.branch make children"
        )
    return Family(child, parent)


def child_weights(loss: torch.Tensor, family: Family, floor: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """w (K,) from the losses (P,) of all particles: they sum to one for each parent, to 0 where no child is finite.

    floor, deviation: expected loss of the truth and its standard deviation, (P,) each.
    """
    child_loss = torch.where(torch.isfinite(loss), loss, torch.inf)[family.child]
    best = torch.full_like(loss, torch.inf).scatter_reduce(0, family.parent, child_loss, "amin")[family.parent]
    least = deviation.clamp(min=torch.finfo(loss.dtype).tiny)
    scale = torch.maximum(best - floor[family.child], least[family.child])
    share = torch.where(torch.isfinite(child_loss), torch.exp((best - child_loss) / scale), 0.0)
    total = torch.zeros_like(loss).scatter_add(0, family.parent, share)[family.parent]
    return share / total.clamp(min=1.0)  # the best one's share is 1


def drawn_down(z: torch.Tensor, family: Family, weights: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
    """z (P, ...) with the parents moved by `share` of the way to their children's mean; weights (K,).

    Nothing moves where no child is finite, and no gradient reaches a child through its parent.
    """
    children = torch.nan_to_num(z[family.child].detach(), posinf=0.0, neginf=0.0)
    mean = torch.zeros_like(z).index_add(0, family.parent, column(weights, z) * children)
    has_finite_child = z.new_zeros(len(z)).index_add(0, family.parent, weights)  # (P,) 1 or 0
    return z + share * (mean - column(has_finite_child, z) * z)


def drawn_up(z: torch.Tensor, family: Family, share: torch.Tensor | float) -> torch.Tensor:
    """z (P, ...) with the children moved by `share` of the way to their parents.

    A parent that diverged draws nobody, and no gradient reaches a parent through its child.
    """
    pull = torch.nan_to_num(z[family.parent].detach() - z[family.child], posinf=0.0, neginf=0.0)
    return z.index_add(0, family.child, share * pull)


class Coupling(Mechanism):
    """The families of one run.

    children: of each particle that is kept; share: of the way, in [0, 1], 0 for families in which nobody draws;
    pruning_step: the timestep (of 1000) at which children are born, that of the pruning; branch_sigma: the noise level
    under which they leave their parent, None for the annealing's own.
    Costs: one decoding of all particles in each step down; with branch_sigma one probability flow of the children.
    """

    needs_all = True

    def __init__(
        self, clock: StepClock, children: int, share: float, pruning_step: int, branch_sigma: float | None = None
    ) -> None:
        self.clock, self.children, self.share, self.branch_sigma = clock, children, share, branch_sigma
        if not isinstance(children, int) or children < 1:
            raise InputError(f"mechanisms.coupling.children={children}: must be a whole number from 1 on")
        if not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise InputError(f"mechanisms.coupling.share={share}: must lie in [0, 1]")
        start = clock.first_step(pruning_step) if pruning_step >= 0 else None
        if not start:
            raise InputError(
                f"mechanisms.coupling.pruning_step={pruning_step}: families begin at a step between the first and the last; "
                "give a pruning_step"
            )
        self.start = start
        level, highest = clock.sigmas[start], clock.sigmas[0]
        if branch_sigma is not None and not level <= branch_sigma <= highest:
            raise InputError(
                f"mechanisms.coupling.branch_sigma={branch_sigma}: must lie between {level:.3g}, the annealing's own level at "
                f"pruning_step={pruning_step}, and sigma_max={highest:g}; or write null for its own"
            )

    def acts(self, step: int) -> bool:
        return self.begins_after(step) or self.direction(step) is not None

    def begins_after(self, step: int) -> bool:
        """Whether the families are born at the end of this step."""
        return step == self.start - 1

    def direction(self, step: int) -> Literal["down", "up"] | None:
        """Who is drawn at this step; with an odd number of steps left nobody at the middle one."""
        if not self.share or step < self.start:
            return None
        done, left = step - self.start, self.clock.num_steps - 1 - step
        return "down" if done < left else "up" if done > left else None

    def strength(self, step: int) -> float:
        """The share of the way, in the steps in which anyone is drawn."""
        return self.share if self.direction(step) else 0.0

    def newborn(self, step: int, present: int) -> int:
        return self.children * present if self.begins_after(step) else 0

    def guide(self, z0hat: torch.Tensor, particles: Particles, s: StepScalars, sampler: Sampler) -> torch.Tensor:
        """z0hat (P, C, h, w) after this step's leg of the V."""
        direction = self.direction(s.step)
        if direction is None:
            return z0hat
        family, share = Family(*(t.to(z0hat.device) for t in family_of(particles))), s.strengths[self.name]
        if direction == "up":
            return drawn_up(z0hat, family, share)
        floor = sampler.operator.noise_floor(particles.y)
        deviation = floor * sampler.operator.floor_spread(particles.y)
        weights = child_weights(sampler.exact_loss(particles.at(z0hat)), family, floor, deviation)
        return drawn_down(z0hat, family, weights, share)

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        """At the pruning: the families, each image's parents first."""
        if not self.begins_after(s.step):
            return particles, {}
        children = born(particles, self.children, self.first_newborn, self.branch_sigma, s, sampler)
        return Particles.joined([particles, children]).image_by_image(), parents_of(children)

    def block(self, reports: list[dict], indices: range) -> dict | None:
        """Each child's parent, by their numbers, and that the parents stayed; None where it has not happened."""
        if not reports:
            return None
        return {"step_index": self.start, "timestep": self.clock.timestep(self.start), "stay": True, **reports[0]}
