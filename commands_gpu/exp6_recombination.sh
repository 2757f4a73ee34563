#!/usr/bin/env bash
# Experiment 6: experiment 1 whose particles exchange the channels that they have solved.
EXPERIMENT=exp6_recombination
SIZES=(1 10 100)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
