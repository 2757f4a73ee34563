"""Coupled families: what the pruning keeps branches into children, and parents and children draw each other.

At the pruning, from z0y, every kept particle becomes `children` children under noise of their own. With a coupling the
parents stay, as the coarser level; in each step after it z0hat moves, before the chain, by the share s = coupling_scale:

    down   z_p <- z_p + s (sum_c w_c z_c - z_p)    parents to their children's weighted mean, the children detached
    up     z_c <- z_c + s (z_p - z_c)              children to what their parent expects of them, the parent detached
    w_c    = exp(-(L_c - L) / S) / (the same summed over the parent's children)

L_c: measurement loss of child c at z0hat; L: the smallest of its parent's children; S = max(L - F, std): how far that
one is from the noise floor F, at least the floor's standard deviation, so that a child of twice the best one's excess
weighs 1/e. The steps that are left make one V: first down, up at the end; in between the chains alone act.

Idea: the bi-level tree of PROJECT.md, phase 2; the V is that of multigrid solvers. The formulas are ours.
"""

from typing import Literal, NamedTuple

import torch

from operators.base import column
from utils.errors import InputError
from utils.sampling.events import Events
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import ode_sigmas
from utils.sampling.vocabulary import TreeSettings


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
    own = torch.where(torch.isfinite(loss), loss, torch.inf)[family.child]
    best = torch.full_like(loss, torch.inf).scatter_reduce(0, family.parent, own, "amin")[family.parent]
    least = deviation.clamp(min=torch.finfo(loss.dtype).tiny)
    scale = torch.maximum(best - floor[family.child], least[family.child])
    share = torch.where(torch.isfinite(own), torch.exp((best - own) / scale), 0.0)
    total = torch.zeros_like(loss).scatter_add(0, family.parent, share)[family.parent]
    return share / total.clamp(min=1.0)  # the best one's share is 1


def drawn_down(z: torch.Tensor, family: Family, weights: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
    """z (P, ...) with the parents moved by `share` of the way to their children's mean; weights (K,).

    Nothing moves where no child is finite, and no gradient reaches a child through its parent.
    """
    children = torch.nan_to_num(z[family.child].detach(), posinf=0.0, neginf=0.0)
    mean = torch.zeros_like(z).index_add(0, family.parent, column(weights, z) * children)
    known = z.new_zeros(len(z)).index_add(0, family.parent, weights)  # (P,) 1 or 0
    return z + share * (mean - column(known, z) * z)


def drawn_up(z: torch.Tensor, family: Family, share: torch.Tensor | float) -> torch.Tensor:
    """z (P, ...) with the children moved by `share` of the way to their parents.

    A parent that diverged draws nobody, and no gradient reaches a parent through its child.
    """
    pull = torch.nan_to_num(z[family.parent].detach() - z[family.child], posinf=0.0, neginf=0.0)
    return z.index_add(0, family.child, share * pull)


class Tree(Mechanism):
    """The families of one run.

    children: of each kept particle; first: the number of the first child of an image; scale: coupling_scale, in [0, 1];
    settings: branch_sigma, the noise level from which children go their own way, None for the annealing's own.
    Costs: with branch_sigma one probability flow of the children; one decoding of all particles in each step down.
    """

    name = "tree"
    needs_all = True

    def __init__(self, children: int, first: int, scale: float, settings: TreeSettings, events: Events) -> None:
        self.children, self.first, self.scale = children, first, scale
        self.settings, self.events = settings, events

    def acts(self, step: int) -> bool:
        return self.events.prune_after(step) or self.direction(step) is not None

    def direction(self, step: int) -> Literal["down", "up"] | None:
        """Who is drawn at this step; with an odd number of steps left nobody at the middle one."""
        start = self.events.pruning_index
        if not self.scale or start is None or step < start:
            return None
        done, left = step - start, self.events.num_steps - 1 - step
        return "down" if done < left else "up" if done > left else None

    def strength(self, step: int) -> float:
        """The share of the way, in the steps in which anyone is drawn."""
        return self.scale if self.direction(step) else 0.0

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
        """At the pruning: the families. Children have a velocity of their own, like the particles of a first step."""
        if not self.events.prune_after(s.step):
            return particles, {}
        tree = particles.branch(self.children, self.first, stay=self.scale > 0)
        born = torch.nonzero(tree.level > 0).flatten()
        children, where = tree.select(born), born.to(tree.z.device)
        if self.settings.branch_sigma is not None:
            tree.z = tree.z.index_copy(0, where, self.restarted(children, s, sampler))
        if tree.velocity is not None:
            tree.velocity = tree.velocity.index_copy(0, where, sampler.noise.draw(children, "velocity", s.step + 1))
        report: Report = {image: {"parent": {}} for image in dict.fromkeys(tree.image.tolist())}
        for image, index, parent in zip(*(t.tolist() for t in (children.image, children.index, children.parent))):
            report[image]["parent"][str(index)] = parent
        return tree, report

    def restarted(self, particles: Particles, s: StepScalars, sampler: Sampler) -> torch.Tensor:
        """Where the probability flow ends from z0y under noise of branch_sigma, (P, C, h, w)."""
        assert self.settings.branch_sigma is not None
        sigma, diffusion = self.settings.branch_sigma, sampler.diffusion
        levels = torch.tensor(ode_sigmas(sigma, diffusion.num_steps, diffusion.sigma_min), dtype=particles.z.dtype)
        noisy = particles.z + sigma * sampler.noise.draw(particles, "branch", s.step)
        return sampler.probability_flow(noisy, levels.to(particles.z.device).unbind())

    def block(self, reports: list[dict], indices: range) -> dict | None:
        """Each child's parent, by their numbers, and whether the parents stayed; None where it has not happened."""
        index = self.events.pruning_index
        if not reports or index is None:
            return None
        return {"step_index": index, "timestep": self.events.clock.timestep(index), "stay": self.scale > 0, **reports[0]}
