#!/usr/bin/env bash
# Experiment 2 on a TPU: commands_gpu/exp2_pruning.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp2_pruning.sh" "$@"
