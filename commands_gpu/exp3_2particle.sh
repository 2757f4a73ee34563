#!/usr/bin/env bash
# Experiment 3: experiment 1 with two particles from the start. Measuring a failure ratio needs 10 or 100 images.
EXPERIMENT=exp3_2particle
SIZES=(10 100)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
