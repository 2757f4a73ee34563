#!/usr/bin/env bash
# Experiment 6 on a TPU: commands_gpu/exp6_recombination.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp6_recombination.sh" "$@"
