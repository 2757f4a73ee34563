"""Does a particle explain its measurement? A word for each; a line for images where none does, or all too well.

Three answers, where it is known what the prior's decoder cannot draw (utils/records/decoder_floor.py): it explains the data to
the noise; to what this prior can draw, with a loss above the noise as any reconstruction by this prior has one; or not. Where
it is not known, and in older records, all above the noise are one.

A loss up to WITHIN standard deviations above its expectation at the true image. Chosen on validation images of the shipped
sets (kept runs under evidence/ at the fast and the hard setting): an image's best particle lies at 0.8 at most on 32
images with sampler=fast and at 1.9 on 48 with task_group=demo_hard; given to the prior of the other set, 17 of 32 images lie
above 3; after the 6 annealing steps of sampler=budget, nine tenths do.
"""

from typing import Any

from utils.errors import counted
from utils.records.aggregate import finite

WITHIN = 3.0  # standard deviations: one true image in 700 lies above
BELOW = -6.0  # fitted particles of the same runs reach -3.7
MISSCALED = 0.02  # of calculated values against measured ones: right gains stay within 0.005, a half gain is off by 0.03
TO_THE_NOISE, TO_THE_PRIOR, NOT_EXPLAINED = "to the noise", "to what the prior draws", "not explained"


def verdicts(metrics: dict[str, Any], image: int) -> list[str | None]:
    """The `verdict` of each particle of an image, by its position; None: not known."""
    rows = metrics["loss"].get("deviation")
    if rows is None:
        return [None] * len(metrics["loss"]["sample"][image])
    return [None if v is None else verdict(v, decoder_deviation(metrics, image)) for v in rows[image]]


def verdict(deviation: float, decoder: float | None = None) -> str:
    """In words, of a loss so many standard deviations above its floor; decoder: by how many its own error raises the floor.

    Below: the noise is smaller than sigma says; the sampler could fit y more closely.
    """
    if deviation < BELOW:
        return f"below ({-deviation:.1f} sd)"
    if deviation <= WITHIN:
        return "within" if decoder is None else TO_THE_NOISE
    if decoder is not None and deviation <= WITHIN + decoder:
        return TO_THE_PRIOR
    return f"{'above' if decoder is None else NOT_EXPLAINED} ({deviation:.1f} sd)"


def verdict_in(record: dict[str, Any], position: int) -> str | None:
    """The same of one particle of a record, before it is aggregated."""
    loss, std, decoder = record["loss"][position], record.get("floor_std"), record.get("decoder_floor")
    if not std or loss is None:
        return None
    return verdict((loss - record["noise_floor"]) / std, None if decoder is None else decoder / std)


def decoder_deviation(metrics: dict[str, Any], image: int) -> float | None:
    """Of an image, given by its position: by how many standard deviations the decoder's error raises its floor."""
    values = metrics["loss"].get("decoder_deviation")
    return None if values is None else values[image]


def remarks(metrics: dict[str, Any]) -> list[str]:
    """One line for each thing that is wrong with the losses of a run."""
    return [line for line in (unexplained(metrics), noise_overstated(metrics)) if line]


def unexplained(metrics: dict[str, Any]) -> str | None:
    """One line that names the images none of whose particles is within; None if there are none or nothing is known."""
    best = {image: min(row) for image, row in _deviations(metrics).items()}
    positions = {image: i for i, image in enumerate(metrics["metadata"]["image_ids"])}
    reach = {image: decoder_deviation(metrics, positions[image]) for image in best}
    above = {image: least for image, least in best.items() if least > WITHIN + (reach[image] or 0.0)}
    if not above:
        return None
    beside = ", nor to what this prior can draw," if any(reach[image] for image in above) else ""
    # of a fitted exposure no gain is wrong
    scales = None if metrics["loss"].get("exposure") else metrics["loss"].get("scale")
    scales = scales or [None] * len(positions)
    wrong = {i: s for i in above if (s := scales[positions[i]]) is not None and abs(s - 1) > MISSCALED}
    gain = "".join(f"; image {i} is {s:.3g} times as bright as its result: data.gain?" for i, s in list(wrong.items())[:1])
    return (
        f"no particle explains the measurement within {WITHIN:g} standard deviations of its noise{beside} on {len(above)} of "
        f"{counted(len(best), 'image')}: {_listed(above)}; an image that the prior does not know, a wrong sigma or convention "
        f"of y, or too few steps{gain}"
    )


def noise_overstated(metrics: dict[str, Any]) -> str | None:
    """One line that names the images all of whose particles lie far below the floor; None as above."""
    highest = {image: max(row) for image, row in _deviations(metrics).items()}
    below = {image: -most for image, most in highest.items() if most < BELOW}
    if not below:
        return None
    return (
        f"every particle fits the measurement more closely than its noise allows on {len(below)} of "
        f"{counted(len(highest), 'image')}: {_listed(below)} below the floor; operator.sigma is larger than the noise of y, "
        "or differs from pixel to pixel as that of counts does (fidelity.poisson)"
    )


def _deviations(metrics: dict[str, Any]) -> dict[int, list[float]]:
    """{image id: those of its particles that are known}, without images of which nothing is known."""
    rows = zip(metrics["metadata"]["image_ids"], map(finite, metrics["loss"].get("deviation", [])))
    return {image: row for image, row in rows if row}


def _listed(deviations: dict[int, float]) -> str:
    """The first five images with their standard deviations, and how many more."""
    shown = ", ".join(f"{image} ({sd:.1f} sd)" for image, sd in list(deviations.items())[:5])
    return shown + (f" and {len(deviations) - 5} more" if len(deviations) > 5 else "")
