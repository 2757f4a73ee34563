#!/usr/bin/env bash
# Small runs that together pass through every part of the program, for tools/evidence/record_hashes.py. Four minutes on two cores.
#   bash tools/evidence/small_runs.sh /tmp/before
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$1
python=.venv/bin/python
[ -x $python ] || python=python
short=(sampler.annealing_scheduler_config.num_steps=6 task.demo_langevin.mcmc_sampler_config.num_steps=4)
small() { OMP_NUM_THREADS=1 $python posterior_sample.py gpu=-1 "save_dir=$out" "$@" > /dev/null; }

small name=langevin experiment=exp0_baseline data.end_id=1 "${short[@]}"
small name=fast experiment=exp4_optimization sampler=fast data.end_id=1
small name=batch experiment=exp2_pruning sampler=budget task_group=demo_budget data.end_id=3 batch_images=3 pruning_step=500
small name=blur task=gaussian_blur sampler=budget num_samples=2 data.end_id=1
small name=passes sampler=budget repulsion_scale=0.15 repulsion.end_step=300 data.end_id=2 batch_images=2 num_samples=2 \
  max_particles_per_pass=2 data=demo-scenes model=demo-scenes step_clock=noise optimization_step=100
small name=chain sampler=budget task_group=demo_hmc repulsion_scale=0.3 repulsion.place=chain repulsion.similarity=image \
  repulsion.bandwidth=median data.end_id=1 pruning_step=500 pruning_keep=3 pruning.fill=clone pruning.loss_tolerance=0
small name=latent sampler=budget repulsion_scale=0.3 repulsion.similarity=latent repulsion.bandwidth=median data.end_id=1
measured=${TMPDIR:-/tmp}/small_runs_measured  # the same for all: the fingerprint holds it
mkdir -p "$measured"
$python -c "import numpy as np, sys; np.save(sys.argv[2], np.load(sys.argv[1])['y'])" \
  "$out/langevin/records/00000.npz" "$measured/0.npy"
small name=measured data=measurement "data.root=$measured" data.resolution=64 sampler=budget num_samples=2
PJRT_DEVICE=CPU XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true" \
  small name=xla use_tpu=true num_samples=2 data.end_id=1 repulsion_scale=0.15 pruning_step=400 pruning_keep=1 optimization_step=400 \
  sampler.annealing_scheduler_config.num_steps=3 task.demo_langevin.mcmc_sampler_config.num_steps=3 \
  optimization.max_iterations=3
