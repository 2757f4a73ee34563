#!/usr/bin/env bash
# The second confirmation: the runs of the first with their final latents denoised, on a second hundred of images a set
# (docs/research/protocols/second_confirmation.md). Resumable; the same command with more images, or another seed, extends it.
#   python tools/make_demo_data.py --split confirm --count 200 --out dataset/second_confirmation
#   bash tools/evidence/second_confirmation.sh faces|scenes IMAGES SEED
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
family=$1 images=$2 seed=$3
runs() {  # runs NAMES override...
  ONLY=$1 bash tools/evidence/experiments.sh "$family" standard "$images" "${@:2}" seed="$seed" batch_images=5 \
    data.root=dataset/second_confirmation/demo-$family data.start_id=100 data.end_id=$((100 + images)) \
    save_dir="results/second_confirmation/standard_${family}_$seed"
}
runs "exp0_fast exp2_pruning exp4_optimization exp6_recombination exp7_sequential" sampler.diffusion_scheduler_config.final_sigma=0.15
runs exp0_langevin
