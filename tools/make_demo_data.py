"""Draws the shipped images: see tools/demo_prior/make_demo_data.py.

python tools/make_demo_data.py --help
"""

from tools.demo_prior.make_demo_data import main
from utils.command_line import run

if __name__ == "__main__":
    run(main)
