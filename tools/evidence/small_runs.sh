#!/usr/bin/env bash
# Small runs that together pass through every part of the program, for tools/evidence/record_hashes.py. Five minutes on two cores.
#   bash tools/evidence/small_runs.sh /tmp/before
# They run the program of the folder that they are started in, so that one script serves the code before and after a change.
set -euo pipefail
[ $# -ge 1 ] || { grep -E "^# +bash" "$0" >&2; exit 2; }
out=$1
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD
steps=sampler.annealing_scheduler_config.num_steps
inner=task.demo_langevin.mcmc_sampler_config.num_steps
small() { OMP_NUM_THREADS=1 "$python" posterior_sample.py gpu=-1 "save_dir=$out" "$@" > /dev/null; }

small name=exp0_langevin experiment=exp0_baseline data.end_id=1 $steps=6 $inner=4
small name=exp0_hmc experiment=exp0_baseline task_group=demo_hmc data.end_id=1 $steps=5 task.demo_hmc.mcmc_sampler_config.num_steps=4
small name=exp0_fast experiment=exp0_baseline sampler=fast data.end_id=1
small name=exp1 experiment=exp1_repulsion sampler=budget task_group=demo_budget data.end_id=2 batch_images=2 max_particles_per_pass=2
small name=exp2 experiment=exp2_pruning sampler=budget task_group=demo_budget data.end_id=3 batch_images=3 pruning_step=500
small name=exp4 experiment=exp4_optimization sampler=fast_denoised data.end_id=1
small name=exp6 experiment=exp6_recombination sampler=budget recombination_step=500 data=demo-scenes model=demo-scenes data.end_id=2
small name=exp7 experiment=exp7_sequential sampler=budget num_samples=6 data.end_id=3 batch_images=2 \
  'sequential.thresholds={deviation: 3.0, denoising: null, agreement: 0.95}'
small name=children sampler=budget pruning_step=500 children=2 tree.branch_sigma=8.0 data.end_id=1
small name=chain sampler=budget task_group=demo_hmc repulsion_scale=0.3 repulsion.place=chain \
  repulsion.bandwidth=median data.end_id=1 pruning_step=500 pruning_keep=3 pruning.fill=clone pruning.loss_tolerance=0
small name=latent sampler=budget repulsion_scale=0.3 repulsion.similarity=latent repulsion.bandwidth=median data.end_id=1
small name=counts sampler=budget num_samples=2 data.end_id=1 fidelity.gaussian=0 fidelity.poisson=1 fidelity.photons=250 \
  fidelity.free_scale=true
small name=blur task=gaussian_blur sampler=budget num_samples=2 data.end_id=1
measured=${TMPDIR:-/tmp}/small_runs_measured  # the same for all: the fingerprint holds it
mkdir -p "$measured"
"$python" -c "import numpy as np, sys; np.save(sys.argv[2], np.load(sys.argv[1])['y'])" \
  "$out/exp0_langevin/records/00000.npz" "$measured/0.npy"
small name=measured data=measurement "data.root=$measured" data.resolution=64 sampler=budget num_samples=2
PJRT_DEVICE=CPU XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true" \
  small name=xla use_tpu=true num_samples=2 data.end_id=1 repulsion_scale=0.15 pruning_step=400 pruning_keep=1 optimization_step=400 \
  $steps=3 $inner=3 optimization.max_iterations=3
