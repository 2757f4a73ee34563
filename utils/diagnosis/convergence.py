"""After the first image of a run: have its chains converged?

The pick's last chain goes on for a third of its iterations. Where its loss is above what the noise explains, and falls still,
the setting is under-run for its data. This stands outside all phases, on a sampler and under noise of its own: records, counted
passes and every number of the run are what they are without it. What it spends is said in its line of the log.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from utils.config.settings import Settings
from utils.data import TestItem
from utils.diagnosis.chain_check import apart, attempted, is_asked
from utils.records.verdict import NOT_EXPLAINED, verdict_in
from utils.running.build import Parts
from utils.sampling.mechanism import OnStep
from utils.sampling.outcome import StepInfo
from utils.sampling.particles import Particles

log = logging.getLogger("latentdaps")

SHARE = 1 / 3  # of the iterations of a chain
# of what a loss has over its floor. Photographs of 32 pixels at noise 0.00625: the picks of six images with sampler=fast fall
# by 9 to 19 %, of three with DAPS's HMC of 65 iterations by 1 % at most. Validation faces with sampler=budget: two of three by
# 27 and 37 %, and one, the lowest by chance, not at all.
FALLING = 0.05


class Continued(NamedTuple):
    """One particle's chain: its loss at the end, after `iterations` more, and what that cost, in words."""

    before: float
    after: float
    iterations: int
    spent: str
    of_truth: float | None  # loss of the true image after encoder and decoder; None without one

    @property
    def change(self) -> float:
        return self.after / self.before - 1 if self.before else 0.0


class Convergence:
    """Of `image`, the run's first: `watching` while it is sampled, `tell` with its record, `close` at the end."""

    def __init__(self, parts: Parts, settings: Settings, image: TestItem) -> None:
        self.parts, self.image, self.on = parts, image, is_asked(parts, settings)
        self.ends: list[tuple[Particles, torch.Tensor]] = []  # of each round: its particles at the last step's z0y, and z0hat
        self.finding = ""

    def watching(self, then: OnStep) -> OnStep:
        """`then`, which also keeps where the image's last chains ended."""
        last = self.parts.sampler.num_steps - 1

        def on_step(info: StepInfo) -> None:
            then(info)
            rows = info.particles.of_image(self.image.id)
            if info.z0hat is not None and info.level is None and info.step == last and len(rows):
                self.ends.append((info.particles.select(rows), info.z0hat[rows.to(info.z0hat.device)]))

        return on_step if self.on else then

    def tell(self, records: Sequence[dict[str, Any]], truths: Sequence[torch.Tensor | None]) -> None:
        """One line on the image, where it is in the batch; truths: each (3, H, W) in [-1, 1] on the CPU, None without."""
        for record, truth in zip(records, truths):
            if self.ends and record["image_id"] == self.image.id and record["selection"]["picked"] is not None:
                number = record["particles"][record["selection"]["picked"]]
                chain = attempted(self.parts, lambda: self.continued(number, truth))
                if chain is not None:
                    self.conclude(record, chain)
        self.ends = []

    def continued(self, number: int, truth: torch.Tensor | None) -> Continued:
        """The chain of the image's particle `number` after its run."""
        particles, z0hat = next((p, z) for p, z in reversed(self.ends) if number in p.index.tolist())
        row = torch.nonzero(particles.index == number).flatten()
        particles, z0hat = particles.select(row), z0hat[row.to(z0hat.device)]
        sampler, counted = apart(self.parts)
        of_truth = None
        with torch.no_grad():
            further, iterations = sampler.continued(particles, z0hat, sampler.num_steps - 1, SHARE)
            before, after = (sampler.exact_loss(sampler.denoised(each)).item() for each in (particles, further))
            if truth is not None and truth.shape[-1] == self.parts.prior.resolution:
                through_autoencoder = particles.at(counted.encode(truth[None].to(z0hat)))
                of_truth = sampler.exact_loss(through_autoencoder).item()
        spent = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counted.calls.items())
        return Continued(before, after, iterations, spent, of_truth)

    def conclude(self, record: dict[str, Any], chain: Continued) -> None:
        """Say what was found, and keep what is wrong with it for the end."""
        loss, floor = record["loss"][record["selection"]["picked"]], record["noise_floor"]
        if not floor:
            return
        at = f"image {self.image.id}: loss / floor of the pick {loss / floor:.3g}"
        allowed = "" if chain.of_truth is None else f" (the truth through the autoencoder {chain.of_truth / floor:.3g})"
        if "decoder_floor" in record:  # the figure of the verdict
            allowed = f" (this prior can draw the object to {1 + record['decoder_floor'] / floor:.3g})"
        fall = (chain.before - chain.after) / (chain.before - floor) if chain.before > floor else 0.0
        answer = verdict_in(record, record["selection"]["picked"])
        explained = answer is None or not answer.startswith(("above", NOT_EXPLAINED))
        if not explained and fall > FALLING:
            self.finding = (
                f"under-run: {at}, and {chain.iterations} more iterations of its last chain lower what is above the floor by "
                f"{100 * fall:.0f} %; raise sampler.chain.num_steps, which goes before the task "
                "group's, or sampler.annealing_scheduler_config.num_steps"
            )
        outcome = "has converged: ok" if explained else "is not explained, and more iterations would not help"
        log.info(
            "chain_check: %s%s; %d more iterations of its last chain change it by %+.1f %% (%s, after the last phase)",
            *(at, allowed, chain.iterations, 100 * chain.change, chain.spent),
            extra={"brief": "" if self.finding else f"chain_check: image {self.image.id} {outcome}"},
        )

    def close(self) -> None:
        """What is wrong, in one line before the closing table."""
        if self.finding:
            log.warning("chain_check: %s", self.finding)
