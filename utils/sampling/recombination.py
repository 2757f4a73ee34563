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

In a further round of a sequential population the image's finished particles are donors too, and stay as they are. Their
losses are those that they had at the same event, so that who is bad is judged among equals; what they give is their result.

A particle without bad channels whose channels agree as they are stays as it is, bit for bit. This is search, not
posterior sampling. Channels are genes; source of the genetic reading: the project's plan (PROJECT.md), none public.
"""

import itertools
from copy import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from operators.base import Operator, column
from utils.priors.base import LatentPrior
from utils.sampling.handicap import beyond_smallest
from utils.sampling.mechanism import Finished, Mechanism, Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock
from utils.sampling.vocabulary import RecombinationSettings

LOCAL_MEAN = 9  # pixels; what is taken off before channels are correlated


def donors_of(
    loss: torch.Tensor, floor: torch.Tensor, spread: torch.Tensor, same_image: torch.Tensor, s: RecombinationSettings
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
    own = torch.arange(len(loss), device=loss.device)[:, None].expand(loss.shape)
    taken = ~good & torch.isfinite(best) if s.donors else torch.zeros_like(good)
    return torch.where(taken, donor, own), behind


def turn_patterns(channels: int) -> torch.Tensor:
    """All ways to turn the channels but one, relative to it: (2^(C-1), C) bool; row 0 turns none, column 0 is the held one."""
    rows = [(False, *rest) for rest in itertools.product((False, True), repeat=channels - 1)]
    return torch.tensor(rows)


def held_channel(source: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
    """The channel of each child that keeps its orientation, (P,): of the particle's own, the one that fits best.

    So a particle keeps its orientation, and the image both. One that has nothing of its own keeps its first donor's.
    """
    own = source == torch.arange(len(source), device=source.device)[:, None]
    return torch.where(own, behind, torch.inf).argmin(dim=1)


def candidates_of(
    image: torch.Tensor, source: torch.Tensor, held: torch.Tensor, turns: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(P, K, C, H, W) children of images (P, C, H, W), and which channels were turned, (P, K, C) bool; K = 2^(C-1) or 1."""
    channels = image.shape[1]
    child = torch.stack([image[source[:, c], c] for c in range(channels)], dim=1)  # (P, C, H, W)
    patterns = turn_patterns(channels if turns else 1).to(image.device)  # (K, C) or (1, 1)
    patterns = patterns.expand(len(patterns), channels) if not turns else patterns
    # column j of a pattern belongs to channel (held + j) mod C
    order = (torch.arange(channels, device=image.device)[None] - held[:, None]) % channels  # (P, C)
    turned = patterns.T[order].transpose(1, 2)  # (P, K, C)
    return torch.where(turned[..., None, None], child.flip(-2, -1)[:, None], child[:, None]), turned


def denoising_loss(prior: LatentPrior, z: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """sum over sigmas of mean |D(z + sigma e, sigma) - z|^2 / sigma^2, (B,): the smaller, the likelier under the prior.

    z (B, C, h, w); noise e (S, B, C, h, w); sigmas (S,). S denoiser calls.
    """
    total = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for e, sigma in zip(noise.unbind(), sigmas.unbind()):
        total = total + (prior.denoise(z + sigma * e, sigma) - z).square().flatten(1).mean(1) / sigma.square()
    return total


def disagreement(image: torch.Tensor) -> torch.Tensor:
    """Minus the sum of the correlations of the channels' high frequencies, (B,); image (B, C, H, W). Needs no network."""
    high = image - F.avg_pool2d(image, LOCAL_MEAN, 1, LOCAL_MEAN // 2, count_include_pad=False)
    unit = F.normalize((high - high.mean((-2, -1), keepdim=True)).flatten(2), dim=2)  # (B, C, H W)
    gram = unit @ unit.transpose(1, 2)
    return -(gram.sum((1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(1)) / 2


class Recombination(Mechanism):
    """Acts after the chain of every `every`-th step from t <= `start` on, never of the last, whose result nothing polishes.

    start: recombination_step, a timestep of 1000; operator: one whose loss is a sum over channels.
    Costs at each event, per particle: one decoding, K = 2^(C-1) encodings, K times len(sigmas) denoiser calls; with
    choice "correlation" one encoding. Nothing in it waits for the device.
    """

    name = "recombination"
    finished: Finished | None = None  # donors of earlier rounds

    def __init__(self, start: int, settings: RecombinationSettings, clock: StepClock, operator: Operator) -> None:
        self.settings, self.clock = settings, clock
        self.first = clock.first_step(start)
        self.turns = settings.turns and operator.turns

    def acts(self, step: int) -> bool:
        if self.first is None or step < self.first or step == self.clock.num_steps - 1:
            return False
        return (step - self.first) % self.settings.every == 0

    def beside(self, finished: Finished) -> Mechanism:
        other = copy(self)
        other.finished = finished
        return other

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        image, count = sampler.prior.decode(particles.z), len(particles)
        found = {"raw": sampler.operator.channel_loss(image, particles.y)}  # (P, C)
        if (handicap := sampler.operator.handicap(image, particles.y)) is not None:
            found["handicap"] = handicap
        everyone, image, seen = self.with_finished(particles, image, found, s.step)
        loss, y = seen["raw"], everyone.y
        floor, spread = sampler.operator.noise_floor(y, axis=2), sampler.operator.floor_spread(y, axis=2)
        same_image = everyone.same_image(loss.device)
        if "handicap" in seen:
            more = beyond_smallest(seen["handicap"], same_image)
            loss = loss + more[:, None] * floor / floor.sum(dim=1, keepdim=True)  # by the channels' numbers of measurements
        sources, behind = donors_of(loss, floor, spread, same_image, self.settings)
        source, behind = sources[:count], behind[:count]
        children, turned = candidates_of(image, source, held_channel(source, behind), self.turns)
        z, score = self.judge(children, particles, s, sampler)
        chosen = score.argmin(dim=1)  # (P,)
        rows = torch.arange(len(chosen), device=chosen.device)
        own = source == rows[:, None]
        accepted = ~own.all(1) | turned[rows, chosen].any(1)
        new = particles.at(torch.where(column(accepted, particles.z), z[rows, chosen], particles.z))
        if particles.velocity is not None:  # a child has none: it starts like the first step
            fresh = sampler.noise.draw(particles, "velocity", s.step + 1)
            new = replace(new, velocity=torch.where(column(accepted, fresh), fresh, particles.velocity))
        found |= {"source": source, "turned": turned[rows, chosen], "loss": loss[:count], "score": score, "accepted": accepted}
        return new, {i: {"step": s.step, "where": w, "index": everyone.index, **found} for i, w in _positions(particles)}

    def with_finished(
        self, particles: Particles, image: torch.Tensor, found: dict[str, torch.Tensor], step: int
    ) -> tuple[Particles, torch.Tensor, dict[str, torch.Tensor]]:
        """The particles, their images and what was `found` of them, (P, ...) each; after them the finished ones, (A, ...)."""
        if self.finished is None:
            return particles, image, found
        held = self.finished.particles
        rows = torch.cat([held.of_image(i) for i, _ in _positions(held)]).argsort().to(image.device)  # as `held` has them
        broken = ~torch.isfinite(self.finished.image).flatten(1).all(1)
        seen = {}
        for name, own in found.items():
            then = torch.cat([self.reported(i, step, name) for i, _ in _positions(held)])[rows]
            seen[name] = torch.cat([own, torch.where(column(broken, then), torch.nan, then)])
        everyone = Particles.joined([replace(particles, velocity=None), replace(held, velocity=None)])
        return everyone, torch.cat([image, self.finished.image]), seen

    def reported(self, image: int, step: int, name: str) -> torch.Tensor:
        """What the finished particles of an image reported at an event, in their order; others took part too."""
        assert self.finished is not None
        reports = [report[image] for report in self.finished.reports[self.name] if image in report]
        reports = [report for report in reports if report["step"] == step]
        values = torch.cat([report[name][report["where"].to(report[name].device)] for report in reports])
        numbers = torch.cat([report["index"][report["where"]] for report in reports]).tolist()
        held = self.finished.particles
        rows = [numbers.index(number) for number in held.index[held.of_image(image)].tolist()]
        return values[torch.tensor(rows, device=values.device)]

    def judge(
        self, children: torch.Tensor, particles: Particles, s: StepScalars, sampler: Sampler
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (P, K, C, h, w) of the candidates (P, K, 3, H, W), and their scores (P, K): the smallest is taken."""
        count, ways = children.shape[:2]
        flat = children.flatten(0, 1)  # (P K, 3, H, W)
        if self.settings.choice == "correlation":
            score = disagreement(flat).view(count, ways)
            best = children[torch.arange(count, device=score.device), score.argmin(1)]
            return sampler.prior.encode(best)[:, None].expand(-1, ways, -1, -1, -1), score
        z = sampler.prior.encode(flat)  # (P K, C, h, w)
        if ways == 1:  # nothing to choose
            return z[:, None], torch.zeros(count, 1, dtype=z.dtype, device=z.device)
        shared = replace(particles, index=torch.zeros_like(particles.index))  # one draw for an image's candidates
        levels = self.settings.sigmas
        noise = sampler.noise.draw(shared, "recombination", s.step, count=len(levels))  # (S, P, C, h, w)
        noise = noise.repeat_interleave(ways, dim=1)
        score = denoising_loss(sampler.prior, z, noise, torch.tensor(levels, dtype=z.dtype, device=z.device))
        return z.view(count, ways, *z.shape[1:]), score.view(count, ways)

    def block(self, reports: list[dict], indices: range) -> dict:
        """Per event: timestep, and per particle (by its number) donors, turned channels, losses before, scores, accepted."""
        events: dict[int, dict] = {}  # rounds of a sequential population meet in one event
        for report in reports:
            where, index, step = report["where"], report["index"], report["step"]
            event = events.setdefault(step, {"step_index": step, "timestep": self.clock.timestep(step), "particles": []})
            rows = {name: report[name].cpu() for name in ("source", "turned", "loss", "score", "accepted")}
            for row in where.tolist():
                event["particles"].append(
                    {
                        "index": int(index[row]),
                        "donors": index[rows["source"][row]].tolist(),
                        **{name: rows[name][row].tolist() for name in ("turned", "loss", "score", "accepted")},
                    }
                )
        return {"events": list(events.values())}


def _positions(particles: Particles) -> list[tuple[int, torch.Tensor]]:
    """[(image id, positions of its particles)] in order of first appearance."""
    return [(image, particles.of_image(image)) for image in dict.fromkeys(particles.image.tolist())]
