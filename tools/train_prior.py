"""Trains the shipped priors: see tools/demo_prior/train_prior.py.

python tools/train_prior.py --help
"""

from tools.demo_prior.train_prior import main

if __name__ == "__main__":
    main()
