#!/usr/bin/env bash
# Experiment 0: four independent particles, every part off (the DAPS baseline as one batch of four).
EXPERIMENT=exp0_baseline
SIZES=(1 10 100)
SWITCHES=(num_samples=4 repulsion_scale=0.0 pruning_step=-1 optimization_step=-1)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
