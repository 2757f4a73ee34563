#!/usr/bin/env bash
# Experiment 5: the best setting of experiments 1 to 4 (configs/experiment/exp5_final.yaml).
EXPERIMENT=exp5_final
SETS=(imagenet ffhq)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
