#!/usr/bin/env bash
# Experiment 5 on a TPU: commands_gpu/exp5_final.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp5_final.sh" "$@"
