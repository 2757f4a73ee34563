#!/usr/bin/env bash
# Experiment 4: experiment 2 with hard data consistency in latent space from t = 200 on.
EXPERIMENT=exp4_optimization
SIZES=(1 10 100)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
