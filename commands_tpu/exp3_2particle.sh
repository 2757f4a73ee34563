#!/usr/bin/env bash
# Experiment 3 on a TPU: commands_gpu/exp3_2particle.sh, the same switches on another device.
PLATFORM=tpu exec bash "$(dirname "${BASH_SOURCE[0]}")/../commands_gpu/exp3_2particle.sh" "$@"
