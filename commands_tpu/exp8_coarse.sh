#!/usr/bin/env bash
# Experiment 8 on a TPU: commands_gpu/exp8_coarse.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp8_coarse.sh" "$@"
