#!/usr/bin/env bash
# The sweeps behind the settings of phase retrieval on the shipped priors, on validation images only. Resumable.
#   python tools/make_demo_data.py --split val --count 64 --out dataset/val
#   bash tools/evidence/tuning/phase_retrieval.sh faces|scenes PART [further overrides]     # the parts stand below
#   bash tools/evidence/tuning/phase_retrieval.sh photographs rate     # needs tools/evidence/tuning/photographs.py
# Every cell is a run folder under results/tuning/<part>_<family>/; the tables in docs/measured/ are computed from the
# copies that tools/evidence/keep_evidence.py makes of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
family=$1 part=$2
further=("${@:3}")
python=.venv/bin/python
[ -x $python ] || python=python

GROUP=task.demo_langevin.mcmc_sampler_config
OPERATOR=task.demo_langevin.operator
ANNEALING=sampler.annealing_scheduler_config.num_steps

case $family in
  photographs) set=(data=folder data.root=dataset/cifar10/mixed/tuning model=natural-32) ;;
  *) set=(data=demo-$family model=demo-$family data.root=dataset/val/demo-$family) ;;
esac

program=posterior_sample.py
cell() {  # cell NAME IMAGES override...
  local name=$1 images=$2
  $python $program gpu=-1 experiment=exp0_baseline "${set[@]}" data.end_id=$images \
    save_dir=results/tuning/${part}_$family name=$name "${@:3}" "${further[@]}"
}

case $part in
  curve)       # plain Langevin: quality against inner iterations
    for n in 3 5 10 20; do cell n$n 8 $GROUP.num_steps=$n; done
    cell n40 4 $GROUP.num_steps=40
    cell n65 2 $GROUP.num_steps=65 ;;
  chain)       # momentum, and whether the velocity lives on; passes are annealing steps x inner iterations
    for m in 0.41 0.85; do
      cell fresh_m$m 8 sampler=fast $ANNEALING=50 sampler.chain.momentum=$m sampler.chain.keep_velocity=false
    done
    for m in 0.7 0.85 0.92; do cell kept_m$m 8 sampler=fast sampler.chain.momentum=$m; done
    cell kept_m0.85_50x3 8 sampler=fast $ANNEALING=50 sampler.chain.num_steps=3
    cell kept_m0.85_17x6 8 sampler=fast $ANNEALING=17 sampler.chain.num_steps=6
    for lr in 4.5e-5 1.1e-4; do cell kept_m0.85_lr$lr 8 sampler=fast $GROUP.lr=$lr; done ;;
  fewer_passes)  # what was tried and left out, at 150 passes (125 and one or two more per annealing step), and at 24
    cell plain_150 16 sampler=fast sampler.chain.num_steps=6
    for c in 0.5 1.0; do program="tools/evidence/tuning/fewer_passes.py curvature $c" cell curvature_$c 16 sampler=fast; done
    for p in 0.5 1.0; do program="tools/evidence/tuning/fewer_passes.py preconditioned $p" cell preconditioned_$p 16 sampler=fast; done
    cell plain_24 16 sampler=budget task_group=demo_budget
    for r in 0.25 0.5; do
      program="tools/evidence/tuning/fewer_passes.py low_frequencies $r" cell low_frequencies_$r 16 sampler=budget task_group=demo_budget
    done ;;
  difficulty)  # how often a single particle fails
    cell standard 16 sampler=fast
    for lr in 1.5e-4 2e-4; do cell lr$lr 16 sampler=fast $GROUP.lr=$lr; done
    for noise in 0.1 0.2; do cell noise$noise 16 sampler=fast $OPERATOR.sigma=$noise; done
    for oversample in 1.5 1.0; do cell oversample$oversample 16 sampler=fast $OPERATOR.oversample=$oversample; done
    for steps in 12 6; do cell ${steps}x5 16 sampler=fast $ANNEALING=$steps; done
    cell 25x2 16 sampler=fast sampler.chain.num_steps=2
    cell hard 16 sampler=fast task_group=demo_hard
    cell budget 16 sampler=budget task_group=demo_budget ;;
  families)    # images of a family that the prior has never seen, and its own
    other=$([ $family = faces ] && echo scenes || echo faces)
    cell images_of_$family 16 sampler=fast
    cell images_of_$other 16 sampler=fast data=demo-$other data.root=dataset/val/demo-$other ;;
  half)        # what storing the UNet in half precision cost: priors that would round to the shipped one
    cell fast 16 sampler=fast
    cell fast_other_passes 16 sampler=fast max_particles_per_pass=2  # control: nothing but other rounding
    for seed in 0 1; do
      $python tools/evidence/tuning/unround.py checkpoints/demo-$family results/tuning/unrounded/$seed/demo-$family --seed $seed
      cell fast_unrounded_$seed 16 sampler=fast model.path=results/tuning/unrounded/$seed/demo-$family
    done ;;
  bf16)        # networks in bfloat16; slow on processors without it, hence one particle
    for precision in fp32 bf16; do cell $precision 8 sampler=fast num_samples=1 precision=$precision; done ;;
  low_noise)   # noise 0.0125, the equivalent at 64 pixels of the official 0.05 at 256
    for setting in 0.01:7e-5 0.01:3.5e-5 0.005:1.75e-5 0.005:3.5e-5 0.005:5e-5 0.0025:4.4e-6; do
      cell tau${setting%:*}_lr${setting#*:} 8 sampler=fast $OPERATOR.sigma=0.0125 \
        $GROUP.tau=${setting%:*} $GROUP.lr=${setting#*:}
    done
    cell tau0.005_lr1.75e-5_50x5 8 sampler=fast $ANNEALING=50 $OPERATOR.sigma=0.0125 \
      $GROUP.tau=0.005 $GROUP.lr=1.75e-5 ;;
  repulsion)   # at the budget setting, where six annealing steps leave little time to recover from a push
    for setting in 0:500 0.02:500 0.05:500 0.05:800 0.15:500 0.15:800 0.15:900; do
      cell scale${setting%:*}_end${setting#*:} 48 data.start_id=16 sampler=budget task_group=demo_budget \
        repulsion_scale=${setting%:*} repulsion.end_step=${setting#*:}
    done ;;
  repulsion_hard)
    for scale in 0 0.05 0.15; do
      cell scale$scale 40 data.start_id=16 sampler=fast task_group=demo_hard repulsion_scale=$scale repulsion.end_step=500
    done ;;
  rate)        # of photographs, at noise 0.05 and at 0.00625, at 32 pixels what the official 0.05 is at 256
    for setting in 0.05:0.01:5e-5 0.05:0.01:1e-4 0.05:0.01:2e-4 0.05:0.01:4e-4 \
                   0.00625:0.005:5e-5 0.00625:0.005:1e-4 0.00625:0.0025:2.5e-5; do
      IFS=: read -r noise tau lr <<< "$setting"
      cell noise${noise}_tau${tau}_lr$lr 10 sampler=fast batch_images=5 $OPERATOR.sigma=$noise $GROUP.tau=$tau $GROUP.lr=$lr
    done
    cell noise0.00625_tau0.0025_lr2.5e-5_50x5 10 sampler=fast batch_images=5 $ANNEALING=50 \
      $OPERATOR.sigma=0.00625 $GROUP.tau=0.0025 $GROUP.lr=2.5e-5 ;;
  exchange)    # of photographs: repulsion, and when a channel counts as bad
    for setting in 0.00625:0.0025:2.5e-5 0.05:0.01:1e-4; do
      IFS=: read -r noise tau lr <<< "$setting"
      common=(data.start_id=10 sampler=fast batch_images=5 repulsion.end_step=500 $OPERATOR.sigma=$noise $GROUP.tau=$tau $GROUP.lr=$lr)
      cell noise${noise}_independent 30 "${common[@]}"
      cell noise${noise}_scale0.15_recombination300 30 "${common[@]}" repulsion_scale=0.15 recombination_step=300
      [ $noise = 0.00625 ] || continue
      cell noise${noise}_repulsion 30 "${common[@]}" repulsion_scale=0.15
      cell noise${noise}_scale0_recombination300 30 "${common[@]}" recombination_step=300
      cell noise${noise}_scale0.15_excess0.25 30 "${common[@]}" repulsion_scale=0.15 recombination_step=300 recombination.excess=0.25
    done ;;
  recombination)  # at the hard setting, on the images of repulsion_hard, whose cells are without it
    hard=(data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard repulsion.end_step=500 recombination_step=300)
    for scale in 0.15 0; do cell scale${scale}_recombination 40 "${hard[@]}" repulsion_scale=$scale; done
    cell two_recombination 40 "${hard[@]}" repulsion_scale=0.15 num_samples=2
    cell correlation_recombination 40 "${hard[@]}" repulsion_scale=0.15 recombination.choice=correlation
    cell two_independent 40 "${hard[@]}" repulsion_scale=0 num_samples=2 recombination_step=-1 ;;
  trust)       # the aligned mean of the particles: tools/evidence/tuning/aligned_mean.py
    cell standard 40 data.start_id=16 batch_images=4 sampler=fast
    cell hard 40 data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard ;;
  free_pixels)  # which loss picks better: picks by either rule are in each record (tools/evidence/tuning/free_pixels.py)
    for fraction in 0.05 0.02; do
      cell free$fraction 40 data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard free_fraction=$fraction
    done ;;
  polish)      # free and bounded latent optimisation of particles that have not converged, none pruned
    budget=(data.start_id=16 batch_images=4 sampler=budget task_group=demo_budget)
    hard=(data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard)
    for polish in none free residual residual_warmup residual_narrow; do
      case $polish in
        none) how=() ;;
        free) how=(optimization_step=200) ;;
        residual) how=(optimization_step=200 optimization.parametrization=residual) ;;
        residual_warmup) how=(optimization_step=200 optimization.parametrization=residual optimization.warmup=10) ;;
        residual_narrow) how=(optimization_step=200 optimization.parametrization=residual optimization.bound=0.1) ;;
      esac
      cell budget_$polish 40 "${budget[@]}" "${how[@]}"
      cell hard_$polish 40 "${hard[@]}" "${how[@]}"
    done
    # far into the noise: what the stops otherwise prevent
    long=(optimization_step=200 optimization.max_iterations=100 optimization.stop_factor=0.5 optimization.max_move=10)
    for polish in free residual; do
      cell long_$polish 28 "${budget[@]}" "${long[@]}" optimization.parametrization=$polish
    done ;;
  recombination_settings)  # at the standard and budget settings, without and with repulsion
    common=(data.start_id=16 batch_images=4 repulsion.end_step=500)
    for scale in 0 0.15; do
      cell standard_scale$scale 40 "${common[@]}" sampler=fast repulsion_scale=$scale
      cell standard_scale${scale}_recombination 40 "${common[@]}" sampler=fast repulsion_scale=$scale recombination_step=300
    done
    for scale in 0 0.05 0.15; do
      budget=("${common[@]}" sampler=budget task_group=demo_budget recombination.every=1 repulsion_scale=$scale)
      cell budget_scale$scale 40 "${budget[@]}"
      cell budget_scale${scale}_recombination500 40 "${budget[@]}" recombination_step=500
      cell budget_scale${scale}_recombination700 40 "${budget[@]}" recombination_step=700
    done ;;
  recombination_mechanisms)  # which of the others is still needed beside it, at the hard setting
    hard=(data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard repulsion.end_step=500)
    cell pruned 40 "${hard[@]}" repulsion_scale=0.15 pruning_step=200
    cell pruned_recombination 40 "${hard[@]}" repulsion_scale=0.15 pruning_step=200 recombination_step=300
    cell polished_recombination 40 "${hard[@]}" repulsion_scale=0.15 optimization_step=200 recombination_step=300
    cell all_recombination 40 "${hard[@]}" repulsion_scale=0.15 pruning_step=200 optimization_step=200 recombination_step=300
    half=("${hard[@]}" num_samples=2 $ANNEALING=13)
    cell two_half_independent 40 "${half[@]}"
    cell two_half_recombination 40 "${half[@]}" repulsion_scale=0.15 recombination_step=400 recombination.every=1 ;;
  portfolio)   # particles that differ in setting, at the hard setting; copies: recombination and repulsion_hard, scale 0
    images=40 hard=(data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard repulsion_scale=0)
    if [ $family = photographs ]; then  # copies: part exchange, noise0.00625_scale0_recombination300
      images=30 hard=(data.start_id=10 batch_images=5 sampler=fast repulsion_scale=0
                      $OPERATOR.sigma=0.00625 $GROUP.tau=0.0025 $GROUP.lr=2.5e-5)
    fi
    low=lowpass_until:600
    rates='[{},{lr:0.7},{lr:0.5},{lr:1.4}]'
    widths='[{},{tau:0.7},{tau:1.5},{tau:2}]'
    spacing='[{},{spacing:0.7},{spacing:1.4},{spacing:2}]'
    lowpass="[{},{lowpass:0.1,$low},{lowpass:0.3,$low},{lowpass:0.5,$low}]"
    mix="[{},{lr:0.7},{tau:1.5},{spacing:0.7,lowpass:0.3,$low}]"
    for name in rates widths spacing lowpass mix; do
      cell ${name}_recombination $images "${hard[@]}" recombination_step=300 "portfolio=${!name}"
      cell ${name}_independent $images "${hard[@]}" "portfolio=${!name}"
    done
    # what a better setting of all four would bring: the chain of the hard setting is above its stability limit
    for copies in lr:0.5 tau:1.5; do
      cell copies_${copies/:/} $images "${hard[@]}" recombination_step=300 "portfolio=[{$copies}]"
    done ;;
  shortened)   # experiment 6's mechanisms with a shorter annealing; 25 x 5: recombination_settings, standard_scale0.15_recombination
    common=(data.start_id=16 batch_images=4 sampler=fast repulsion.end_step=500 repulsion_scale=0.15 recombination_step=400
            recombination.every=1)
    for steps in 13 10 20 8 16; do cell ${steps}x5 40 "${common[@]}" $ANNEALING=$steps; done
    for steps in 10 13; do cell ${steps}x5_to_one 40 "${common[@]}" $ANNEALING=$steps pruning_step=500 pruning_keep=1; done
    for steps in 13 16; do cell ${steps}x5_two 40 "${common[@]}" $ANNEALING=$steps num_samples=2; done
    for steps in 20 25; do cell ${steps}x5_one 40 "${common[@]}" $ANNEALING=$steps num_samples=1; done
    cell 13x5_ode2 40 "${common[@]}" $ANNEALING=13 sampler.diffusion_scheduler_config.num_steps=2
    for end in 0.05 0.2; do cell 13x5_end$end 40 "${common[@]}" $ANNEALING=13 sampler.annealing_scheduler_config.sigma_min=$end; done ;;
  ends)        # where 20 x 5 ends: two particles that exchange, no repulsion
    common=(data.start_id=16 batch_images=8 sampler=fast $ANNEALING=20 num_samples=2 recombination_step=400 recombination.every=1)
    for end in 0.1 0.05 0.03 0.02; do cell end$end 40 "${common[@]}" sampler.annealing_scheduler_config.sigma_min=$end; done ;;
  turns)       # four particles that turn their channels but take none from others, so each is as alone; what a pass is spent on
    turns=(data.start_id=16 batch_images=4 recombination_step=400 recombination.every=1 recombination.donors=false)
    for setting in 16:5 20:4 12:5 27:3; do
      cell ${setting/:/x} 64 "${turns[@]}" sampler=short $ANNEALING=${setting%:*} sampler.chain.num_steps=${setting#*:}
    done
    # what the certificates beside the checkpoints are made of: eight particles
    cell 20x4_denoised 64 "${turns[@]}" sampler=short_denoised
    cell 20x4_denoised_4 64 "${turns[@]}" sampler=short_denoised first_particle=4 ;;
  sequential)  # by the certificates of part turns, on the same images: what they decide is a fit, not a test
    cell short_denoised 64 data.start_id=16 batch_images=8 sampler=short_denoised num_samples=8 population=sequential \
      sequential.start=1 sequential.add=1 recombination_step=400 recombination.every=1 recombination.donors=false ;;
  children)    # four particles from start to end: new ones, or at the pruning two families of two children or one of a parent and three
    # new ones without and with recombination: recombination_settings, budget_scale0 and budget_scale0_recombination700
    budget=(data.start_id=16 batch_images=4 sampler=budget task_group=demo_budget)
    exchange=(recombination_step=700 recombination.every=1)
    cell budget_children 40 "${budget[@]}" pruning_step=500 children=2
    cell budget_recombination_children 40 "${budget[@]}" "${exchange[@]}" pruning_step=500 children=2
    cell budget_coupled 40 "${budget[@]}" pruning_step=500 pruning_keep=1 children=3 coupling_scale=0.2
    cell budget_restarted 40 "${budget[@]}" pruning_step=500 children=2 tree.branch_sigma=3
    hard=(data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard)  # new ones: repulsion_hard and recombination, scale 0
    cell hard_children 40 "${hard[@]}" pruning_step=200 children=2
    cell hard_recombination_children 40 "${hard[@]}" pruning_step=200 children=2 recombination_step=300
    cell hard_children_500 40 "${hard[@]}" pruning_step=500 children=2
    cell hard_coupled 40 "${hard[@]}" pruning_step=500 pruning_keep=1 children=3 coupling_scale=0.2
    cell hard_restarted 40 "${hard[@]}" pruning_step=200 children=2 tree.branch_sigma=3 ;;
  recombination_rule)  # what is bad, from when on, how often, and which half of the operation does it
    hard=(data.start_id=16 batch_images=4 sampler=fast task_group=demo_hard repulsion_scale=0.15 repulsion.end_step=500)
    hard+=(recombination_step=300)
    program=tools/evidence/tuning/exchange_effects.py  # results as without it, and what each exchange did to the particles
    cell default 40 "${hard[@]}"
    cell no_turns 40 "${hard[@]}" recombination.turns=false
    cell no_donors 40 "${hard[@]}" recombination.donors=false
    cell step500 40 "${hard[@]}" recombination_step=500
    cell step200 40 "${hard[@]}" recombination_step=200
    cell deviation3 40 "${hard[@]}" recombination.deviation=3
    cell deviation0.5 40 "${hard[@]}" recombination.deviation=0.5
    cell excess0 40 "${hard[@]}" recombination.excess=0
    cell excess2 40 "${hard[@]}" recombination.excess=2
    cell every1 40 "${hard[@]}" recombination.every=1
    cell every4 40 "${hard[@]}" recombination.every=4 ;;
  instrument)  # the standard setting with experiment 6's mechanisms, on what a detector gives; clean: part recombination_settings
    common=(data.start_id=16 batch_images=4 sampler=fast repulsion_scale=0.15 repulsion.end_step=500 recombination_step=300)
    cell exposure 28 "${common[@]}" fidelity.free_scale=true
    for holes in beam_stop dead_pixels; do
      program="tools/evidence/tuning/instrument.py $holes" cell $holes 28 "${common[@]}"
    done
    for setting in 1e3:2.2:0.337 1e4:22:0.1066 1e5:220:0.0337; do  # peak: counts at magnitude 1: 1 / (2 sqrt(those))
      IFS=: read -r peak photons sigma <<< "$setting"
      cell counts_$peak 28 "${common[@]}" fidelity.gaussian=0 fidelity.poisson=1 fidelity.photons=$photons $OPERATOR.sigma=$sigma
    done
    cell counts_1e3_silog 28 "${common[@]}" fidelity.gaussian=0 fidelity.silog=1 fidelity.poisson=1e-6 fidelity.photons=2.2 \
      $OPERATOR.sigma=0.337 ;;  # the trace of poisson makes the measurement counts
  *) echo "unknown part $part: choose one of those in $0" >&2; exit 2 ;;
esac
