"""Two folders of photographs in an order in which the classes take turns: one to tune on, one to report on.

    python tools/evidence/tuning/photographs.py dataset/cifar10 dataset/cifar10/mixed

CIFAR holds train/CLASS/FILE and test/CLASS/FILE (tools/unpack_cifar10.py). OUT/tuning: the training photographs that
checkpoints/natural-32 has never seen, OUT/reporting: the test photographs; links, numbered from 0 on, so that the first ten
images of a run are one of each class.
"""

import sys
from itertools import chain, zip_longest
from pathlib import Path

from utils.data import files_in
from utils.paths import PROJECT

HELD_OUT = PROJECT / "checkpoints" / "natural-32" / "held_out.txt"


def in_turn(files):
    """Files (CLASS/NAME) with the classes taking turns, each in its own order."""
    classes = {}
    for file in sorted(files):
        classes.setdefault(file.parent.name, []).append(file)
    return [file for file in chain.from_iterable(zip_longest(*classes.values())) if file is not None]


def link(files, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(in_turn(files)):
        place = folder / f"{number:05d}_{file.parent.name}_{file.name}"
        place.unlink(missing_ok=True)
        place.symlink_to(file.resolve())
    print(f"{folder}: {len(files)} photographs")


if __name__ == "__main__":
    cifar, out = map(Path, sys.argv[1:])
    known = {name.rsplit(".", 1)[0] for name in HELD_OUT.read_text().split()}  # also of a copy in another format
    held_out = [f for f in files_in(cifar / "train", "images") if str(f.relative_to(cifar / "train").with_suffix("")) in known]
    link(held_out, out / "tuning")
    link(files_in(cifar / "test", "images"), out / "reporting")
