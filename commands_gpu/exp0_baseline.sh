#!/usr/bin/env bash
# Experiment 0: four independent particles, every part off (the DAPS baseline as one batch of four).
EXPERIMENT=exp0_baseline
SIZES=(1 10 100)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
