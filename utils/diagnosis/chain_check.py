"""Once at the start of a run: does the learning rate of the inner chain fit this prior and this operator?

It stands before the first batch and outside its phases, on a sampler of its own: records, counted passes and every number of
the sampling are what they are without it. What it spends is said in its line of the log.
"""

import copy
import logging
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from utils import device as devices
from utils.config.settings import Settings
from utils.data import TestItem
from utils.diagnosis.stability import Pace, curvature_products, largest_eigenvalue, pace
from utils.errors import one_line
from utils.priors.wrappers import CountingPrior
from utils.running.build import Parts, load_batch
from utils.running.ranks import Rank
from utils.sampling.schedule import learning_rate

log = logging.getLogger("latentdaps")

Result = TypeVar("Result")
PRODUCTS = 7  # on the shipped priors within 2 % of what 24 find


def check_chain(parts: Parts, settings: Settings, image: TestItem) -> None:
    """Warns, in one line, of a chain above its stability limit or one that cannot move; `image` is the run's first.

    Nothing it meets ends the run.
    """
    if not is_asked(parts, settings):
        return
    measured = attempted(parts, lambda: residual_curvature(parts, settings, image))
    if measured is None:
        return
    curvature, spent = measured
    ends = paces(parts, settings, curvature)
    findings = complaints(ends, settings)
    brief = {"brief": "" if findings else "chain_check: ok"}
    log.info("chain_check: %s (%s)", "; ".join(f"{where}: {describe(p)}" for where, p in ends.items()), spent, extra=brief)
    if findings:
        log.warning("chain_check: %s", "; ".join(findings))


def is_asked(parts: Parts, settings: Settings) -> bool:
    """Whether this process checks. auto: not on XLA, where it would compile graphs that nothing else uses."""
    auto = not devices.compiles_each_graph(parts.device)
    asked = auto if settings.chain_check == "auto" else settings.chain_check
    return parts.sampler.chain is not None and asked and Rank.of_this_process().first


def attempted(parts: Parts, measure: Callable[[], Result]) -> Result | None:
    """What `measure` finds; None, after a line of the log, where it fails."""
    try:
        return measure()
    except Exception as error:  # parts of one's own may have no second derivative, and a device no room for it
        left_out = one_line(error, 200)
        if devices.is_out_of_memory(error):
            left_out = "the device is out of memory"
        elif "does not require grad" in left_out:
            left_out = "the loss has no second derivative, by which the rate is judged"
        log.info("chain_check: left out (%s)", left_out)
        return None
    finally:
        devices.release_memory(parts.device)  # else batch_images=auto would find less


def apart(parts: Parts) -> tuple[Any, CountingPrior]:
    """A sampler of its own, whose passes the run does not count, and the prior that counts them."""
    sampler = copy.copy(parts.sampler)
    sampler.prior = counted = CountingPrior(getattr(parts.prior, "plain", parts.prior))
    return sampler, counted


def residual_curvature(parts: Parts, settings: Settings, image: TestItem) -> tuple[float, str]:
    """Largest eigenvalue of the Hessian of |A(D(z)) - y|^2 at the first particle's z0hat, and what it cost, in words.

    One latent stands for the annealing: on the shipped faces (phase retrieval) 2.37 there and 2.0 to 2.2 along the chain.
    """
    sampler, counted = apart(parts)
    particles, _ = load_batch(parts, settings, [image])
    particles = particles.select(torch.tensor([0]))
    with torch.no_grad():
        z = sampler.sigmas[0] * parts.noise.draw(particles, "initial")
        z0hat = sampler.probability_flow(z, sampler.scalars(0).ode)  # (1, C, h, w)
    product = curvature_products(lambda z: parts.operator.residual(counted.decode(z), particles.y), z0hat)
    eigenvalue = largest_eigenvalue(product, parts.noise.draw(particles, "velocity"), PRODUCTS)
    if not math.isfinite(eigenvalue):
        raise ValueError("the curvature is not finite")
    decoder = counted.calls["decoder_forward_backward"] + min(PRODUCTS, z0hat.numel())
    return eigenvalue, f"{decoder} decoder passes, {counted.calls['denoiser_calls']} of the denoiser, before the first phase"


def paces(parts: Parts, settings: Settings, curvature: float) -> dict[str, Pace]:
    """Where learning rate and noise level are largest, and where they are smallest."""
    chain, sigmas = settings.chain, settings.sampler.annealing_sigmas
    last = len(sigmas) - 2
    return {
        where: pace(chain, curvature, learning_rate(chain.lr, chain.lr_min_ratio, step, last + 1), sigmas[step])
        for where, step in (("first step", 0), ("last step", last))
    }


def describe(p: Pace) -> str:
    return f"{product_of(p)} (limit {p.limit:.3g}), drift {p.widths:.3g} posterior widths"


def product_of(p: Pace) -> str:
    return f"lr {p.lr:.3g} x curvature {p.stiffness:.3g} = {p.lr * p.stiffness:.3g}"


def complaints(ends: dict[str, Pace], settings: Settings) -> list[str]:
    """What is wrong with the chain, one line each."""
    key, lines = f"task.{settings.task_group}.mcmc_sampler_config.lr", []
    lr = settings.chain.lr * settings.pixel  # as the key has it, also at a coarse level
    unstable = {where: p for where, p in ends.items() if p.unstable}
    if unstable:
        words = ", ".join(f"{product_of(p)} at the {where}" for where, p in unstable.items())
        lower = lr * min(p.limit / (p.lr * p.stiffness) for p in unstable.values())
        lines.append(
            f"{key}={lr:g}: above the stability limit {ends['first step'].limit:.3g} of this chain ({words}); "
            f"it jumps about its target by the clipped gradient instead of settling; below {lower:.2g} it is stable"
        )
    stuck = {where: p for where, p in ends.items() if p.stuck}
    if stuck:
        words = ", ".join(f"{p.widths:.3g} of a posterior width at the {where}" for where, p in stuck.items())
        lines.append(
            f"{key}={lr:g}: this chain hardly moves: all {settings.chain.num_steps} iterations drift by {words} "
            "even in the stiffest direction; raise lr, lr_min_ratio or num_steps"
        )
    return lines
