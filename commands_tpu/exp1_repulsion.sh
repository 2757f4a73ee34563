#!/usr/bin/env bash
# Experiment 1 on a TPU: commands_gpu/exp1_repulsion.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp1_repulsion.sh" "$@"
