"""Recombination: particles of one image exchange the channels that they have solved, and channels are turned to agree.

Where the measurement's loss is a sum over channels, each channel's fitness is known without the truth; where a channel's
180-degree rotation leaves the measurement unchanged, its orientation is known to the prior alone. So, at an event:

    L_pc          loss of channel c of particle p, F its noise floor, s the standard deviation of that as a share
    donor of c    the particle of the image with the smallest L_pc; its excess e_c = max(L_c / F - 1, 0)
    bad           (L_pc - L_c) / F > excess e_c + deviation s
    child of p    its good channels, and the donors' in place of its bad ones; the channel that fits best is held, the
                  others are tried in both orientations
    choice        the candidate that the prior finds likeliest: the smallest sum over sigma of
                  |D(z + sigma e, sigma) - z|^2 / sigma^2 of its encoding z, with one e for all candidates of an image

A particle without bad channels whose channels agree as they are stays as it is, bit for bit. This is search, not
posterior sampling. Channels are genes; source of the genetic reading: the project's plan (PROJECT.md), none public.
"""

import itertools
from dataclasses import replace

import torch

from operators.base import Operator, column
from utils.mechanisms.plan import Course, Settings
from utils.mechanisms.recombination.plan import Recombination as Section
from utils.priors.base import LatentPrior
from utils.sampling.denoising import denoising_loss
from utils.sampling.handicap import owed
from utils.sampling.mechanism import Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock


def donors_of(
    loss: torch.Tensor, floor: torch.Tensor, spread: torch.Tensor, same_image: torch.Tensor, s: Section
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each particle takes each channel from, (P, C) positions: itself where its own is good enough.

    loss (P, C), not finite for a particle that diverged; floor, spread (P, C): expected loss of a true channel, and its
    standard deviation as a share of that; same_image (P, P) bool. Also by how much its own channel fits worse than the
    donor's, (P, C), in floors.
    """
    loss = torch.where(torch.isnan(loss), torch.inf, loss)  # XLA's nan_to_num takes no infinity
    best, donor = torch.where(same_image[:, :, None], loss[None], torch.inf).min(dim=1)  # (P, C) each
    behind = (loss - best) / floor
    behind = torch.where(torch.isnan(behind), torch.inf, behind)
    good = behind <= s.excess * (best / floor - 1).clamp(min=0) + s.deviation * spread
    itself = torch.arange(len(loss), device=loss.device)[:, None].expand(loss.shape)
    taken = ~good & torch.isfinite(best) if s.donors else torch.zeros_like(good)
    return torch.where(taken, donor, itself), behind


def turn_patterns(channels: int) -> torch.Tensor:
    """All ways to turn the channels but one, relative to it: (2^(C-1), C) bool; row 0 turns none, column 0 is the held one."""
    rows = [(False, *turned) for turned in itertools.product((False, True), repeat=channels - 1)]
    return torch.tensor(rows)


def held_channel(source: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
    """The channel of each child that keeps its orientation, (P,): of the particle's own, the one that fits best.

    So a particle keeps its orientation, and the image both. One that has nothing of its own keeps its first donor's.
    """
    from_itself = source == torch.arange(len(source), device=source.device)[:, None]
    return torch.where(from_itself, behind, torch.inf).argmin(dim=1)


def candidates_of(
    image: torch.Tensor, source: torch.Tensor, held: torch.Tensor, turns: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, K, C, H, W) offspring of images (P, C, H, W), and which channels were turned, (P, K, C) bool; K = 2^(C-1) or 1."""
    channels = image.shape[1]
    child = torch.stack([image[source[:, c], c] for c in range(channels)], dim=1)  # (P, C, H, W)
    unturned = torch.zeros(1, channels, dtype=torch.bool)
    patterns = (turn_patterns(channels) if turns else unturned).to(image.device)  # (K, C)
    # column j of a pattern belongs to channel (held + j) mod C
    order = (torch.arange(channels, device=image.device)[None] - held[:, None]) % channels  # (P, C)
    turned = patterns.T[order].transpose(1, 2)  # (P, K, C)
    return torch.where(turned[..., None, None], child.flip(-2, -1)[:, None], child[:, None]), turned


class Recombination(Mechanism):
    """Acts after the chain of every `every`-th step from t <= `start` on, never of the last, whose result nothing polishes.

    start: recombination_step, a timestep of 1000; operator: one whose loss is a sum over channels.
    Costs at each event, per particle: one decoding, K = 2^(C-1) encodings, K times len(sigmas) denoiser calls. Nothing in
    it waits for the device.
    """

    name = "recombination"

    def __init__(self, start: int, settings: Section, clock: StepClock, operator: Operator) -> None:
        self.settings, self.clock = settings, clock
        self.first = clock.first_step(start)
        self.turns = settings.turns and operator.turns

    def acts(self, step: int) -> bool:
        if self.first is None or step < self.first or step >= self.clock.annealing_steps - 1:
            return False
        return (step - self.first) % self.settings.every == 0

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        image = sampler.prior.decode(particles.z)
        loss = sampler.operator.channel_loss(image, particles.y)  # (P, C)
        floor, spread = sampler.operator.noise_floor(particles.y, axis=2), sampler.operator.floor_spread(particles.y, axis=2)
        same_image = particles.same_image(loss.device)
        if (more := owed(sampler.operator, image, particles.y, same_image)) is not None:
            loss = loss + more[:, None] * floor / floor.sum(dim=1, keepdim=True)  # by the channels' numbers of measurements
        source, behind = donors_of(loss, floor, spread, same_image, self.settings)
        offspring, turned = candidates_of(image, source, held_channel(source, behind), self.turns)
        z, score = self.judge(offspring, particles, s, sampler)
        chosen = score.argmin(dim=1)  # (P,)
        rows = torch.arange(len(chosen), device=chosen.device)
        from_itself = source == rows[:, None]
        accepted = ~from_itself.all(1) | turned[rows, chosen].any(1)
        new = particles.at(torch.where(column(accepted, particles.z), z[rows, chosen], particles.z))
        if particles.velocity is not None:  # a child has none: it starts like the first step
            fresh = sampler.noise.draw(particles, "velocity", s.step + 1)
            new = replace(new, velocity=torch.where(column(accepted, fresh), fresh, particles.velocity))
        outcome = {"source": source, "turned": turned[rows, chosen], "loss": loss, "score": score, "accepted": accepted}
        return new, {
            image: {"step": s.step, "where": rows_of_image, "index": particles.index, **outcome}
            for image, rows_of_image in particles.by_image().items()
        }

    def judge(
        self, offspring: torch.Tensor, particles: Particles, s: StepScalars, sampler: Sampler
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (P, K, C, h, w) of the candidates (P, K, 3, H, W), and their scores (P, K): the smallest is taken."""
        count, ways = offspring.shape[:2]
        flat = offspring.flatten(0, 1)  # (P K, 3, H, W)
        z = sampler.prior.encode(flat)  # (P K, C, h, w)
        if ways == 1:  # nothing to choose
            return z[:, None], torch.zeros(count, 1, dtype=z.dtype, device=z.device)
        shared = replace(particles, index=torch.zeros_like(particles.index))  # one draw for an image's candidates
        levels = self.settings.sigmas
        noise = sampler.noise.draw(shared, "exchange", s.step, count=len(levels))  # (S, P, C, h, w)
        noise = noise.repeat_interleave(ways, dim=1)
        score = denoising_loss(sampler.prior, z, noise, torch.tensor(levels, dtype=z.dtype, device=z.device))
        return z.view(count, ways, *z.shape[1:]), score.view(count, ways)

    def block(self, reports: list[dict], indices: range) -> dict:
        """Per event: timestep, and per particle (by its number) donors, turned channels, losses before, scores, accepted."""
        events: dict[int, dict] = {}  # rounds of a sequential population meet in one event
        for report in reports:
            rows_of_image, index, step = report["where"], report["index"], report["step"]
            event = events.setdefault(step, {"step_index": step, "timestep": self.clock.timestep(step), "particles": []})
            rows = {name: report[name].cpu() for name in ("source", "turned", "loss", "score", "accepted")}
            for row in rows_of_image.tolist():
                event["particles"].append(
                    {
                        "index": int(index[row]),
                        "donors": index[rows["source"][row]].tolist(),
                        **{name: rows[name][row].tolist() for name in ("turned", "loss", "score", "accepted")},
                    }
                )
        return {"events": list(events.values())}


def build(s: Settings, course: Course, prior: LatentPrior, operator: Operator) -> Recombination:
    """Of a run."""
    return Recombination(s.recombination_step, s.recombination, course.clock, operator)
