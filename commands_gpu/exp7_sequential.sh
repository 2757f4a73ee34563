#!/usr/bin/env bash
# Experiment 7: particles one after the other, only while none passes a certificate. On a real prior a certificate of it comes first
# (docs/research/real_models.md). Not on TPUs: rounds differ in size, and XLA would compile each anew.
EXPERIMENT=exp7_sequential
SIZES=(1 10 100)
source "$(dirname "${BASH_SOURCE[0]}")/../tools/experiment.sh"
experiment "$@"
