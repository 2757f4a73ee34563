"""Samples as posterior_sample.py does and writes what each exchange of channels did to the particles, seen with the truth.

    python tools/evidence/tuning/exchange_effects.py sampler=fast recombination_step=300 data.end_id=16 name=observed
    python tools/evidence/tuning/exchange_effects.py --summary results/observed

Observing changes no latent and is not counted: results and costs are those of the same command with posterior_sample.py.
It needs images with a truth. <run folder>/exchange_effects.jsonl has a line per image, event and particle: accepted, and
`before` and `after` the exchange
  label, psnr   mode label of the whole particle and its PSNR in the better orientation
  right         per channel the orientation in which it is right, "0" or "180", by the label's thresholds; null: in none
  excess        per channel its loss over the noise floor, in floors
  even, odd     per channel the correlation of its even part under 180 degrees with the truth's, and its odd part along the
                truth's (1 upright, -1 turned); a twin image within a channel: even near 1, odd near 0
"""

import json
from pathlib import Path

from utils.command_line import Parser, run
from utils.config.compose import compose
from utils.errors import InputError

EFFECTS = "exchange_effects.jsonl"
WORSE_DB = 0.5


def observed(path, success):
    """Recombination that looks at its particles before and after, and load_batch that lends it their truths."""
    from utils.evaluation.scores import mode_labels, rotated
    from utils.running import build

    truths, load_batch = {}, build.load_batch

    def lending(parts, settings, images):
        particles, truth = load_batch(parts, settings, images)
        truths.update({image.id: x for image, x in zip(images, truth)})
        return particles, truth

    def look(particles, sampler):
        image = sampler.counted._prior.decode(particles.z)
        floor = sampler.operator.noise_floor(particles.y) / image.shape[1]
        excess = sampler.operator.channel_loss(image, particles.y) / floor - 1
        rows = []
        for x, number, over in zip(image.cpu(), particles.image.tolist(), excess.tolist()):
            truth, limits = truths[number], (success.threshold_db, success.margin_db)
            whole, channels = mode_labels(x[None], truth, *limits), []
            for own, true in zip(x, truth):
                label = mode_labels(own[None, None], true[None], *limits)["label"][0]
                even, wanted = (t + rotated(t) - (t + rotated(t)).mean() for t in (own, true))
                odd, along = (t - rotated(t) for t in (own, true))
                channels.append(
                    {
                        "right": label if label in ("0", "180") else None,
                        "even": float((even * wanted).sum() / (even.norm() * wanted.norm())),
                        "odd": float((odd * along).sum() / along.square().sum()),
                    }
                )
            row = {"label": whole["label"][0], "psnr": whole["psnr_aligned"][0], "excess": over}
            rows.append(row | {name: [channel[name] for channel in channels] for name in ("right", "even", "odd")})
        return rows

    class Observed(build.Recombination):
        def after_chain(self, particles, s, sampler):
            before = look(particles, sampler)
            new, report = super().after_chain(particles, s, sampler)
            after, changed = look(new, sampler), (new.z != particles.z).flatten(1).any(1)
            keys = zip(particles.image.tolist(), particles.index.tolist(), changed.tolist())
            with open(path, "a") as file:
                for (image, index, accepted), was, is_now in zip(keys, before, after):
                    row = {"image": image, "step": s.step, "particle": index, "accepted": accepted}
                    print(json.dumps(row | {"before": was, "after": is_now}), file=file)
            return new, report

    return Observed, lending


def summary(folder):
    """Counts over all events of a run: what became worse, what became good, and what had become of it at the next look."""
    found = {(r["image"], r["particle"], r["step"]): r for r in map(json.loads, (folder / EFFECTS).open())}
    metrics = json.loads((folder / "metrics.json").read_text())
    final = dict(zip(metrics["metadata"]["image_ids"], metrics["modes"]["label"]))
    steps = sorted({step for *_, step in found})
    names = "particles changed good good_changed label_lost worse worse_later_failed failed failed_made_good"
    names += " channels_right channels_right_changed channels_right_lost channels_gained"
    counts = dict.fromkeys(names.split(), 0)
    for (image, particle, step), row in found.items():
        before, after, changed = row["before"], row["after"], row["accepted"]
        good, still = (look["label"] in ("0", "180") for look in (before, after))
        later = found.get((image, particle, steps[steps.index(step) + 1])) if step != steps[-1] else None
        at_next = later["before"]["label"] if later else final[image][particle]
        worse = good and (not still or after["psnr"] < before["psnr"] - WORSE_DB)
        counts["particles"] += 1
        counts["changed"] += changed
        counts["good"] += good
        counts["good_changed"] += good and changed
        counts["label_lost"] += good and not still
        counts["worse"] += worse
        counts["worse_later_failed"] += worse and at_next not in ("0", "180")
        counts["failed"] += not good
        counts["failed_made_good"] += still and not good
        for was, is_now in zip(before["right"], after["right"]):
            counts["channels_right"] += was is not None
            counts["channels_right_changed"] += was is not None and changed
            counts["channels_right_lost"] += was is not None and is_now is None
            counts["channels_gained"] += was is None and is_now is not None
    return counts


def main():
    parser = Parser(prog="exchange_effects.py", description=__doc__.splitlines()[0])
    parser.add_argument("--summary", type=Path, metavar="RUN", help="print the counts of a run folder, sample nothing")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    if args.summary:
        print(json.dumps(summary(args.summary), indent=1))
        return
    import posterior_sample
    from utils.config.check import check
    from utils.running import console

    cfg = compose(args.overrides)
    settings = check(cfg)
    if settings.recombination_step < 0 or settings.data.kind == "measurement":
        raise InputError("recombination_step=-1 or data=measurement: nothing to observe; set it, with images that have a truth")
    console.setup_logging()
    from utils.running import build

    folder = Path(cfg.save_dir) / cfg.name
    folder.mkdir(parents=True, exist_ok=True)
    build.Recombination, build.load_batch = observed(folder / EFFECTS, settings.success)
    posterior_sample.run(cfg)


if __name__ == "__main__":
    run(main)
