#!/usr/bin/env bash
# Experiment 1: four particles that repel each other early, full run.
EXPERIMENT=exp1_repulsion
SIZES=(1 10 100)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
