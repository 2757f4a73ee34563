#!/usr/bin/env bash
# Experiment 6: experiment 1 whose particles exchange the channels that they have solved.
EXPERIMENT=exp6_recombination
SIZES=(1 10 100)
SWITCHES=(num_samples=4 repulsion_scale=0.15 repulsion.end_step=500 pruning_step=-1 optimization_step=-1 recombination_step=300)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
