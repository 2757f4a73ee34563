"""Pruning: at one annealing step, keep a few particles per image by measurement loss and diversity.

Going through an image's particles from the lowest loss up: one that is near a kept one is redundant; one that is far
is kept if its loss is tolerable. A rotated twin has equal loss and maximal distance, which is what we want to keep.
Slots that no worthy particle fills follow `fill`: the next best, a clone of the best, or nobody.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from operators.base import Operator
from utils.mechanisms.plan import Course, Settings
from utils.mechanisms.pruning.plan import PLAN
from utils.mechanisms.pruning.plan import Pruning as Section
from utils.priors.base import LatentPrior
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.phases import Opening
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock


class Choice(NamedTuple):
    """One image's decision; numbers are positions within the image's particles, best first."""

    kept: list[int]  # surviving originals
    clones: list[tuple[int, int]]  # (slot, parent): the dropped slot takes over the parent's state


def choose(
    loss: Sequence[float],
    distance: Sequence[Sequence[float]],
    noise_floor: float,
    floor_std: float,
    keep: int,
    settings: Section,
) -> Choice:
    """Which particles of one image stay.

    loss (n,), distance (n, n): floats, NaN for a non-finite particle; noise_floor, floor_std: expected loss of the
    truth and its standard deviation; keep: how many; settings: near_distance (fraction of the median pairwise
    distance, of two middle ones the larger), loss_tolerance (a far particle's excess over the floor may be this much
    larger than the best one's, as a fraction), fill.
    """
    alive = [i for i in sorted(range(len(loss)), key=lambda i: (loss[i], i)) if loss[i] == loss[i]]
    if not alive:
        return Choice(list(range(keep)), [])  # nothing to choose by: the batch shrinks all the same
    pairs = sorted(distance[i][j] for i in alive for j in alive if i < j)
    near = settings.near_distance * (pairs[len(pairs) // 2] if pairs else 0.0)
    excess = max(loss[alive[0]] - noise_floor, floor_std)
    kept = [alive[0]]
    for i in alive[1:]:
        far = all(distance[i][j] >= near for j in kept)
        if len(kept) < keep and far and loss[i] - noise_floor <= (1 + settings.loss_tolerance) * excess:
            kept.append(i)
    others = [i for i in alive if i not in kept] + [i for i in range(len(loss)) if i not in alive]
    open_slots = keep - len(kept)
    if settings.fill == "next_best":
        return Choice(kept + others[:open_slots], [])
    if settings.fill == "clone":
        return Choice(kept, [(slot, kept[0]) for slot in others[:open_slots]])
    return Choice(kept, [])


class Pruning(Mechanism):
    """The event of one run. keep: pruning_keep; step: the first annealing step of the smaller batch."""

    name = "pruning"
    needs_all = True

    def __init__(self, keep: int, settings: Section, step: int, clock: StepClock) -> None:
        self.keep, self.settings, self.clock = keep, settings, clock
        self.opening = Opening(step, PLAN.BEFORE, PLAN.AFTER)

    def acts(self, step: int) -> bool:
        return step == self.opening.step - 1

    def present_after(self, step: int, present: int) -> int:
        return min(self.keep, present)

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        return self(particles, sampler.exact_loss(particles), sampler.operator)

    def block(self, reports: list[dict], indices: range) -> dict | None:
        """What was kept and dropped, and by which losses and distances; None where it has not happened."""
        step = self.opening.step
        return {"step_index": step, "timestep": self.clock.timestep(step), **reports[0]} if reports else None

    def __call__(self, particles: Particles, loss: torch.Tensor, operator: Operator) -> tuple[Particles, Report]:
        """Prune `particles`, whose z is z0y; loss (P,). Returns (particles, {image id: report})."""
        flat = particles.z.flatten(1)
        # by differences, also of many particles: by products near copies would lose their digits
        distance = torch.cdist(flat[None], flat[None], compute_mode="donot_use_mm_for_euclid_dist")[0].cpu()  # (P, P)
        loss = torch.where(torch.isfinite(flat).all(1), loss, torch.nan)
        floor, spread = operator.noise_floor(particles.y), operator.floor_spread(particles.y)  # (P,)
        loss, floor, floor_std = torch.stack([loss, floor.to(loss.dtype), (floor * spread).to(loss.dtype)]).tolist()
        source, index, reports = [], [], {}
        for image, rows in particles.by_image().items():
            numbers = particles.index[rows].tolist()
            losses, distances = [loss[i] for i in rows], distance[rows][:, rows].tolist()
            choice = choose(losses, distances, floor[rows[0]], floor_std[rows[0]], self.keep, self.settings)
            parent_of = {i: i for i in choice.kept} | dict(choice.clones)  # {slot: whose state it holds}
            slots = sorted(parent_of, key=lambda slot: numbers[slot])
            source += [int(rows[parent_of[slot]]) for slot in slots]
            kept = [numbers[slot] for slot in slots]
            index += kept
            reports[image] = {
                "kept": kept,
                "dropped": [number for number in numbers if number not in kept],
                "parents": {str(numbers[slot]): numbers[parent] for slot, parent in choice.clones},
                "loss": losses,
                "distance": [distances[i][j] for i in range(len(numbers)) for j in range(i + 1, len(numbers))],
            }
        pruned = particles.select(torch.tensor(source))
        pruned.index = torch.tensor(index)
        return pruned, reports


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Pruning:
    """Of a run."""
    opening = PLAN.opening(s, course.clock)
    assert opening is not None
    return Pruning(s.pruning_keep, s.pruning, opening.step, course.clock)
