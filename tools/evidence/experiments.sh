#!/usr/bin/env bash
# Experiments 0 to 4, 6 and 7 on the test images of a shipped set, at one difficulty. Resumable; more images extend a run.
#   bash tools/evidence/experiments.sh faces|scenes standard|hard|budget IMAGES [further overrides]
# Every experiment is a run folder results/experiments/<difficulty>_<family>/<experiment>; y and initial noise of an
# image are the same in all of them. The tables in docs/research/measured/ are computed from the copies under evidence/.
set -euo pipefail
[ $# -ge 3 ] || { grep -E "^# +bash" "$0" >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/../python.sh"
cd "$ROOT"
family=$1 difficulty=$2 images=$3
further=("${@:4}")
push=() exchange=()  # as the experiment has it
unknown() { echo "unknown $1: choose faces or scenes with standard, hard or budget" >&2; exit 2; }
case $difficulty in
  standard) setting=(sampler=fast) ;;
  hard) setting=(sampler=fast task_group=demo_hard) ;;
  budget) setting=(sampler=budget task_group=demo_budget)
          push=(repulsion_scale=0.05)  # six annealing steps do not recover from a stronger one
          exchange=(recombination_step=700 recombination.every=1) ;;
  *) unknown "difficulty $difficulty" ;;
esac
case $family in
  faces|scenes) set=(data=demo-$family model=demo-$family) ;;
  *) unknown "set $family" ;;
esac

run() {  # run EXPERIMENT NAME override...
  "$PYTHON" posterior_sample.py gpu=-1 experiment=$1 "${set[@]}" data.end_id=$images \
    save_dir=results/experiments/${difficulty}_$family name=$2 "${setting[@]}" "${@:3}" "${further[@]}"
}

run exp0_baseline exp0_fast
run exp1_repulsion exp1_repulsion "${push[@]}"
run exp2_pruning exp2_pruning "${push[@]}"
run exp3_2particle exp3_2particle "${push[@]}"
run exp4_optimization exp4_optimization "${push[@]}"
run exp6_recombination exp6_recombination "${push[@]}" "${exchange[@]}"
[ $difficulty != standard ] || run exp7_sequential exp7_sequential sampler=short  # the certificates hold for this setting alone
if [ $difficulty = budget ]; then
  run exp1_repulsion exp1_repulsion_0.15
  run exp2_pruning exp2_pruning_0.15
else
  run exp2_pruning exp2_pruning_600 pruning_step=600 repulsion.end_step=600  # an earlier pruning saves more
fi
# the unaccelerated DAPS setting beside the accelerated one, and the latent optimisation alone
if [ $difficulty = standard ]; then
  run exp0_baseline optimization_alone optimization_step=200
  run exp0_baseline exp0_langevin sampler=latent_edm_daps
fi
