#!/usr/bin/env bash
# Experiment 4: experiment 2 with hard data consistency in latent space from t = 200 on.
EXPERIMENT=exp4_optimization
SIZES=(1 10 100)
SWITCHES=(num_samples=4 repulsion_scale=0.15 repulsion.end_step=500 pruning_step=200 optimization_step=200)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
