"""CIFAR-10 as pictures: the binary version of the data set to OUT/train/CLASS/NNNN.png and OUT/test/CLASS/NNNN.png.

    curl -O https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz
    python tools/unpack_cifar10.py cifar-10-binary.tar.gz dataset/cifar10

50 000 training and 10 000 test photographs of 32 x 32 pixels in ten classes, numbered within each class in the order of
the archive. Source of the data and of its format: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009).
"""

import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from utils.command_line import Parser, run, say
from utils.errors import InputError, short
from utils.files import write_atomically

SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE  # a label, then the red, green and blue plane
PARTS = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


def main() -> None:
    parser = Parser(prog="unpack_cifar10.py", description="Unpack the binary version of CIFAR-10 into PNG files.")
    parser.add_argument("archive", metavar="ARCHIVE", help="cifar-10-binary.tar.gz")
    parser.add_argument("out", metavar="OUT", help="folder for train/ and test/")
    args = parser.parse_args()
    try:
        with tarfile.open(args.archive) as archive:
            members = {Path(member.name).name: archive.extractfile(member).read() for member in archive if member.isfile()}
    except (tarfile.TarError, EOFError, zlib.error):
        raise InputError(f"{args.archive}: is not the whole archive; download it again") from None
    if missing := {"batches.meta.txt", *PARTS["train"], *PARTS["test"]} - set(members):
        raise InputError(f"{args.archive}: holds no {min(missing)}; get the binary version, cifar-10-binary.tar.gz")
    classes = members["batches.meta.txt"].decode(errors="replace").split()
    for name in classes:  # a folder of this name is made
        if not re.fullmatch(r"\w[\w-]{0,63}", name):
            raise InputError(f"{args.archive}: has a class {short(name)}, which is no plain word; download it again")
    parts = {part: b"".join(members[name] for name in names) for part, names in PARTS.items()}
    for part, records in parts.items():
        if len(records) % RECORD or max(records[::RECORD], default=0) >= len(classes):
            raise InputError(f"{args.archive}: its {part} records are no photographs of its classes; download it again")
    for part, records in parts.items():
        unpack(records, classes, Path(args.out) / part)


def unpack(records: bytes, classes: Sequence[str], folder: Path) -> None:
    """Write the photographs of concatenated records as folder/CLASS/NNNN.png."""
    records = np.frombuffer(records, np.uint8).reshape(-1, RECORD)
    counts: Counter[str] = Counter()
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for record in records:
        name = classes[record[0]]
        pixels = record[1:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)  # (H, W, 3)
        picture = Image.fromarray(pixels)
        path = folder / name / f"{counts[name]:04d}.png"
        write_atomically(path, lambda file: picture.save(file, format="PNG"), durable=False)
        counts[name] += 1
    say(f"{folder}: {len(records)} photographs in {len(counts)} classes")


if __name__ == "__main__":
    run(main)
