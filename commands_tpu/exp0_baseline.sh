#!/usr/bin/env bash
# Experiment 0 on a TPU: commands_gpu/exp0_baseline.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp0_baseline.sh" "$@"
