#!/usr/bin/env bash
# Experiment 1: four particles that repel each other early, full run.
EXPERIMENT=exp1_repulsion
SIZES=(1 10 100)
SWITCHES=(num_samples=4 repulsion_scale=0.15 repulsion.end_step=500 pruning_step=-1 optimization_step=-1)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
