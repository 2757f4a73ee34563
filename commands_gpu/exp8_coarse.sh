#!/usr/bin/env bash
# Experiment 8: photographs of 256 pixels, solved at 32, 64 and then 128 pixels, by the shipped prior of 32-pixel photographs.
EXPERIMENT=exp8_coarse
SIZES=(1 10 90)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
