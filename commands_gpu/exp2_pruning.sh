#!/usr/bin/env bash
# Experiment 2: experiment 1, pruned from four to two particles at t = 200.
EXPERIMENT=exp2_pruning
SIZES=(1 10 100)
SWITCHES=(num_samples=4 repulsion_scale=0.15 repulsion.end_step=500 pruning_step=200 optimization_step=-1)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
