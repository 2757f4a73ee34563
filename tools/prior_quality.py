"""Measures the shipped priors: see tools/demo_prior/prior_quality.py.

python tools/prior_quality.py --help
"""

from tools.demo_prior.prior_quality import main
from utils.command_line import run

if __name__ == "__main__":
    run(main)
