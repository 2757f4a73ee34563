#!/usr/bin/env bash
# The baselines beside ours, on the test images of a shipped set. Resumable; more images extend a run.
#   bash tools/evidence/baselines.sh faces|scenes phase_retrieval IMAGES [further overrides]
#   bash tools/evidence/baselines.sh faces gaussian_blur|inpainting_rand IMAGES [further overrides]    # one particle each
#   ONLY='classical ldps' bash ...    # these runs alone
# Steps of the baselines: from the sweeps on validation images in docs/research/baselines.md.
set -euo pipefail
[ $# -ge 3 ] || { grep -E "^# +bash" "$0" >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/../python.sh"
cd "$ROOT"
family=$1 task=$2 images=$3
further=("${@:4}")
GROUP=task.demo_langevin.mcmc_sampler_config
OFFICIAL=($GROUP.mc_algo=hmc $GROUP.num_steps=65 $GROUP.momentum=0.41 $GROUP.lr=4.13e-5)  # drifts as far as the group's chain

run() {  # run NAME override...
  [[ " ${ONLY:-$1} " == *" $1 "* ]] || return 0
  "$PYTHON" posterior_sample.py gpu=-1 data=demo-$family model=demo-$family task=$task data.end_id=$images \
    save_dir=results/baselines/${task}_$family name=$1 "${@:2}" "${further[@]}"
}

if [ $task = phase_retrieval ]; then
  run classical sampler=classical
  run ldps sampler=ldps sampler.omega=3
  run exp0_daps "${OFFICIAL[@]}"
  run exp0_fast sampler=fast
  run exp6_recombination experiment=exp6_recombination sampler=fast
  run exp7_sequential experiment=exp7_sequential sampler=short_denoised
  run resample sampler=resample num_samples=2
  run resample_fair sampler=resample_fair num_samples=2
else
  rate=4e-5
  [ $task = gaussian_blur ] && rate=1.2e-4
  LINEAR=($GROUP.mc_algo=hmc $GROUP.num_steps=35 $GROUP.momentum=0.95 $GROUP.lr=$rate)  # the official chain, rates swept
  run psld sampler=psld num_samples=1
  run ldps sampler=ldps num_samples=1
  run exp0_daps "${LINEAR[@]}" num_samples=1
  run exp0_fast sampler=fast num_samples=1
fi
