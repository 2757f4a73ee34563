"""Trains the shipped priors: see tools/demo_prior/train_prior.py.

python tools/train_prior.py --help
"""

from utils.command_line import run
from utils.config.compose import call
from utils.device import silence_unused_xla


def train() -> None:
    silence_unused_xla()  # before diffusers is imported
    from tools.demo_prior.train_prior import main

    call(main)


if __name__ == "__main__":
    run(train)
