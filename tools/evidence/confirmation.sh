#!/usr/bin/env bash
# The confirmation: images that nothing has used, settings frozen before (docs/research/protocols/confirmation.md). Resumable; the same command
# with more images, or another seed, extends it.
#   python tools/make_demo_data.py --split confirm --out dataset/confirm
#   bash tools/evidence/confirmation.sh faces|scenes standard|hard|budget IMAGES SEED
#   bash tools/evidence/confirmation.sh photographs standard IMAGES SEED    # the second hundred
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
family=$1 difficulty=$2 images=$3 seed=$4
case $family in
  photographs) where=(data.start_id=100 data.end_id=$((100 + images))) ;;
  *) where=(data.root=dataset/confirm/demo-$family batch_images=5) ;;
esac
export ONLY="exp0_fast exp1_repulsion exp2_pruning exp3_2particle exp4_optimization exp6_recombination exp7_sequential exp0_langevin"
bash tools/evidence/experiments.sh "$family" "$difficulty" "$images" "${where[@]}" seed="$seed" \
  save_dir="results/confirmation/${difficulty}_${family}_$seed"
