#!/usr/bin/env bash
# Experiment 2: experiment 1, pruned from four to two particles at t = 200.
EXPERIMENT=exp2_pruning
SIZES=(1 10 100)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
