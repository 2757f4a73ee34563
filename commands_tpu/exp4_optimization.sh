#!/usr/bin/env bash
# Experiment 4 on a TPU: commands_gpu/exp4_optimization.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp4_optimization.sh" "$@"
