#!/usr/bin/env bash
# Experiment 5: the best of the others, on 100 images a set (configs/experiment/exp5_final.yaml says which that is).
EXPERIMENT=exp5_final
SETS=(imagenet ffhq)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
