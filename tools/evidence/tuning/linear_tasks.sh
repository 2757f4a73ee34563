#!/usr/bin/env bash
# The sweeps behind the demo groups of the linear tasks and HDR, on validation faces only. Resumable.
#   python tools/make_demo_data.py --split val --count 64 --out dataset/val
#   bash tools/evidence/tuning/linear_tasks.sh rate|tau|end|default|edges [further overrides]
#   bash tools/evidence/tuning/linear_tasks.sh photographs_rate | photographs    # held-out and test photographs (photographs.py)
#   bash tools/evidence/tuning/linear_tasks.sh final      # the chosen settings on ten test images, and their table in docs/measured/tasks.md
# Every cell is a run folder results/tuning/tasks/<task>/<setting>; the table of all cells is
#   python tools/parse_metrics.py results/tuning/tasks --format csv --out evidence/tuning_tasks.csv
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
part=$1
further=("${@:2}")
python=.venv/bin/python
[ -x $python ] || python=python

GROUP=task.demo_langevin.mcmc_sampler_config
ANNEALING=sampler.annealing_scheduler_config
half_a_side=(task.demo_langevin.operator.mask_len_range=[16,17] task.demo_langevin.operator.margin=4)  # of 32 pixels
SETTING="\${hydra:runtime.choices.sampler}_tau\${$GROUP.tau}_lr\${$GROUP.lr}"

sweep() {  # sweep TASK,TASK override=value,value ...   four images, one particle each
  $python posterior_sample.py -m task=$1 gpu=-1 num_samples=1 data.root=dataset/val/demo-faces data.end_id=4 \
    batch_images=4 'save_dir=results/tuning/tasks/${hydra:runtime.choices.task}' name="$SETTING" "${@:2}" "${further[@]}"
}

case $part in
  rate)     # the learning rate, with few passes
    sweep inpainting_rand,gaussian_blur,motion_blur sampler=fast $GROUP.tau=0.03 $GROUP.lr=1.6e-4,5e-4,1.6e-3
    sweep down_sampling sampler=fast $GROUP.tau=0.03 $GROUP.lr=5e-4,1.6e-3,5e-3
    sweep inpainting,hdr sampler=fast $GROUP.tau=0.03 $GROUP.lr=5e-5,1.6e-4,5e-4 ;;
  tau)      # how far the likelihood is trusted, at the same lr / tau^2: the noise of 0.05 has a tau of 0.07
    sweep inpainting_rand,gaussian_blur,motion_blur sampler=fast $GROUP.tau=0.07 $GROUP.lr=2.7e-3 ;;
  end)      # super resolution: how small the steps become
    SETTING+="_end\${$GROUP.lr_min_ratio}"
    sweep down_sampling sampler=fast $GROUP.tau=0.03,0.05 $GROUP.lr=1.6e-3,4.4e-3 $GROUP.lr_min_ratio=0.01
    SETTING+="_\${$ANNEALING.num_steps}steps_sigma\${$ANNEALING.sigma_min}"
    sweep down_sampling sampler=fast $GROUP.lr_min_ratio=0.01 $ANNEALING.num_steps=25,50 $ANNEALING.sigma_min=0.01,0.03 ;;
  default)  # Langevin with all passes, at the rates of the groups
    SETTING="default_tau\${$GROUP.tau}_lr\${$GROUP.lr}"
    sweep gaussian_blur,down_sampling,inpainting,hdr,motion_blur,inpainting_rand data.end_id=2 batch_images=2 ;;
  edges)    # the multi-scale gradient term beside the squared residual; 16 images
    SETTING="gradient\${fidelity.gradient}"
    sweep gaussian_blur,down_sampling sampler=fast data.end_id=16 fidelity.gradient=0,0.1,0.2,0.3 ;;
  final)    # what docs/measured/tasks.md reports
    run=(gpu=-1 sampler=fast num_samples=2 data.end_id=10 batch_images=10 save_dir=results/tasks)
    $python posterior_sample.py -m task=gaussian_blur,motion_blur,inpainting_rand,inpainting,hdr "${run[@]}" \
      'name=${hydra:runtime.choices.task}' "${further[@]}"
    $python posterior_sample.py task=down_sampling "${run[@]}" $ANNEALING.num_steps=50 $ANNEALING.sigma_min=0.01 \
      name=down_sampling "${further[@]}"
    $python tools/evidence/trivial_reconstruction.py results/tasks/* --picture docs/pictures/tasks.png
    rm -rf evidence/tasks
    $python tools/evidence/keep_evidence.py results/tasks/* --to evidence/tasks
    $python tools/evidence/project_tables.py ;;
  photographs_rate)
    photographs=(data=folder data.root=dataset/cifar10/mixed/tuning model=natural-32 data.end_id=8 batch_images=8
                 'save_dir=results/tuning/photograph_tasks/${hydra:runtime.choices.task}')
    sweep inpainting_rand,gaussian_blur,motion_blur,down_sampling sampler=fast "${photographs[@]}" $GROUP.lr=5e-4,1.6e-3,5e-3
    sweep hdr sampler=fast "${photographs[@]}" $GROUP.lr=5e-5,1.6e-4,5e-4
    sweep inpainting sampler=fast "${photographs[@]}" "${half_a_side[@]}" $GROUP.lr=5e-5,1.6e-4,5e-4 ;;
  photographs)
    run=(gpu=-1 sampler=fast num_samples=2 data=folder data.root=dataset/cifar10/mixed/reporting model=natural-32 data.end_id=20
         batch_images=10 save_dir=results/photograph_tasks)
    $python posterior_sample.py -m task=gaussian_blur,motion_blur,inpainting_rand,hdr,down_sampling "${run[@]}" \
      'name=${hydra:runtime.choices.task}' "${further[@]}"
    $python posterior_sample.py task=inpainting "${run[@]}" "${half_a_side[@]}" name=inpainting "${further[@]}"
    $python tools/evidence/trivial_reconstruction.py results/photograph_tasks/* --mean dataset/cifar10/mixed/tuning ;;
  *) echo "unknown part $part: choose rate, tau, end, default, edges, photographs_rate, photographs or final" >&2; exit 2 ;;
esac
