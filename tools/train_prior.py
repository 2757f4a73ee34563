"""Trains the shipped priors: see tools/demo_prior/train_prior.py.

python tools/train_prior.py --help
"""

from tools.demo_prior.train_prior import main
from utils.command_line import run
from utils.config.compose import call

if __name__ == "__main__":
    run(lambda: call(main))
