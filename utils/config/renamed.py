"""What DAPS and earlier code of this plan call otherwise. Data; utils/config/overrides.py reads it.

DAPS: configs/default.yaml, configs/*/, README and commands/*.sh of zhangbingliang2019/DAPS, with config/ of its legacy
branch. In `write`, {value} is the old value, {stem} the value without _latent, {last} the last part of the old key and
{task_group} the task group of the command line.
"""

from typing import NamedTuple


class Row(NamedTuple):
    old: str  # a pattern of the key, of key=value, or of a whole flag
    write: str | None  # what says the same today; None: leave it out
    why: str = ""  # a clause of its own; "": the key has another name


WANDB = "Weights & Biases is a callback (pip install -e '.[wandb]'; docs/guide/running.md)"
TRAJECTORY = "trajectories are kept as trace.png and, as numbers, in the records"
SCORES = "PSNR, SSIM and LPIPS are always computed and shown"
PIXELS = "this program samples in the latents of a prior, not in pixels"
SCHEDULE = "the schedule is always DAPS's edm with poly-7"
LOADED = "the model's _target_ and path say what is loaded"
GUESS = "a guess where no particle has a channel did not help and was removed (docs/research/measured/recombination.md)"
PORTFOLIO = "the portfolio is retired (it did not beat copies of its best entry; docs/research/log.md)"
EARLY_STOP = "the early stop of particles is retired (it spared few passes and stopped good ones; docs/research/log.md)"
FREE = "values kept out of the fit are retired, as their loss picks worse (docs/research/log.md)"
CLOCK = "the clock by noise levels is retired, no kept run used it (docs/research/log.md); timesteps are 1000 (N - i) / N"
CHOICE = "the choice by correlation is retired, it left more particles failed (docs/research/log.md); the prior chooses"
DECAY = "this decay is retired, no kept run used it (docs/research/log.md); there are linear and cosine"
BOUNDED = (
    "the bounded residual is a plug-in (docs/examples/plugins/bounded_residual.py) with the keys of its YAML: "
    "--config-dir docs/examples/plugins experiment=bounded_residual"
)
TERM = (
    "the term {key} is a plug-in (docs/examples/plugins/{plug_in}.py) with a weight in its YAML: "
    "--config-dir docs/examples/plugins experiment={plug_in}"
)
COUPLING = (
    "the coupling of parents and children is retired to a plug-in, mechanisms.coupling.share under --config-dir "
    "docs/examples/plugins experiment=coupling (docs/research/log.md)"
)
FLAG = "the number of images is a flag of the scripts in commands_gpu/ alone"

ROWS = (
    # DAPS: top level
    Row("num_runs", "num_samples={value}"),
    Row("batch_size", "batch_images={value}"),
    Row("sub_batch_size", "max_particles_per_pass={value}"),
    Row("wandb=[Ff]alse", None, WANDB),
    Row("wandb", "callbacks=wandb", WANDB),
    Row("project_name", "callbacks.wandb.project={value}", WANDB),
    Row("save_samples", None, "every particle is saved, in save_dir/name/samples"),
    Row("save_traj*", None, TRAJECTORY),
    Row("show_eval", None, SCORES),
    Row("eval_fn_list*", None, SCORES),
    Row("eval_fid", None, f"there is no FID; {SCORES}"),
    Row("+seed", "seed={value}", "seed stands in the config already"),
    # DAPS: names of configurations
    Row("data=demo", "data=demo-ffhq"),
    Row("data=ffhq", "data=test-ffhq"),
    Row("data=imagenet", "data=test-imagenet"),
    Row("model=ffhq256ddpm", "model=ffhq256ldm", PIXELS),
    Row("model=imagenet256ddpm", "model=imagenet256ldm", PIXELS),
    Row("model=ldm_ffhq", "model=ffhq256ldm"),
    Row("model=ldm_imagenet", "model=imagenet256ldm"),
    Row("model=sdv1.5", "model=stable-diffusion-v1.5"),
    Row("sampler=edm_daps", "sampler=latent_edm_daps", PIXELS),
    Row("sampler=sd_edm_daps", "sampler=latent_edm_daps", "Stable Diffusion has the schedule of the other latent priors"),
    Row("task_group=pixel", "task_group=ldm", PIXELS),
    Row("task_group=pixel_hmc", "task_group=ldm", PIXELS),
    Row("task_group=latent", "task_group=ldm"),
    Row("task=*_latent", "task={stem} task_group=ldm", "the task group says which prior the rates are for"),
    # DAPS: inside the groups
    Row("data.name", None, "data.root and data.kind say what is read"),
    Row("model.name", None, LOADED),
    Row("model.ldm_config*", None, LOADED),
    Row("model.model_id", "model.path={value}"),
    Row("model.diffusion_path", "model.path={value}"),
    Row("model.target_resolution", "model.resolution={value}"),
    Row("sampler.latent", None, PIXELS),
    Row("sampler.*_scheduler_config.name", None, SCHEDULE),
    Row("sampler.*_scheduler_config.timestep", None, SCHEDULE),
    Row("sampler.num_steps", "sampler.annealing_scheduler_config.num_steps={value}"),
    Row("sampler.sigma_max", "sampler.annealing_scheduler_config.sigma_max={value}"),
    Row("sampler.sigma_min", "sampler.annealing_scheduler_config.sigma_min={value}"),
    Row("task.*.operator.name", None, "task=NAME says which operator it is"),
    Row("task.*.mcmc_sampler_config.prior_solver", None, "the prior's score is always that of a Gaussian, DAPS's default"),
    Row("task.operator.name", None, "task=NAME says which operator it is"),
    Row("task.operator.*", "task.{task_group}.operator.{last}={value}"),
    Row("task.mcmc_sampler_config.*", "task.{task_group}.mcmc_sampler_config.{last}={value}"),
    Row("task.lgvd_config.*", "task.{task_group}.mcmc_sampler_config.{last}={value}"),
    Row("task.likelihood_estimator_config.ode_step", "sampler.diffusion_scheduler_config.num_steps={value}"),
    Row("task.likelihood_estimator_config.step", "task.{task_group}.mcmc_sampler_config.num_steps={value}"),
    Row("task.likelihood_estimator_config.name", "task.{task_group}.mcmc_sampler_config.mc_algo={value}"),
    Row("task.likelihood_estimator_config.*", "task.{task_group}.mcmc_sampler_config.{last}={value}"),
    # earlier code of this plan
    *(
        Row(f"{key}={decay}", "repulsion.decay=linear", DECAY)
        for key in ("repulsion_schedule", "repulsion.decay")
        for decay in ("constant", "quadratic")
    ),
    Row("repulsion_schedule", "repulsion.decay={value}"),
    Row(
        "repulsion_sigma_break",
        "repulsion.end_step=500",
        "the repulsion ends at a timestep of 1000, not at a sigma (500 as in experiment 1), "
        "and repulsion_scale is relative (0.15 there)",
    ),
    Row("repulsion_dino_model", "repulsion.similarity=rotation", "particles are not compared by DINO features"),
    *(
        Row(f"hard_data_consistency={off}", "optimization_step=-1", "its switch is optimization_step, -1 for off")
        for off in ("-1", "0", "[Ff]alse", "null")
    ),
    Row(
        "hard_data_consistency",
        "optimization_step=200",
        "hard data consistency acts from a timestep of 1000 on, optimization_step (200 as in experiment 4)",
    ),
    Row("optimization_lr", "optimization.lr={value}"),
    Row("optimization_max_iters", "optimization.max_iterations={value}"),
    Row(
        "optimization_eps",
        "optimization.stop_factor=1.0",
        "the optimisation stops at a mean squared residual relative to the noise, stop_factor times sigma^2",
    ),
    Row("recombination.rescue", None, GUESS),
    Row("portfolio", None, PORTFOLIO),
    Row("sequential.thresholds.stop_*", None, EARLY_STOP),
    Row(
        "sequential.thresholds=*stop_*",
        "sequential.thresholds={{deviation:3.0,denoising:null,agreement:0.95}}",
        f"{EARLY_STOP}, so three thresholds are left, for example these",
    ),
    Row("free_fraction", None, FREE),
    Row("selection", None, FREE),
    Row("selection.rule", None, FREE),
    Row("step_clock", None, CLOCK),
    Row("recombination.choice", None, CHOICE),
    Row(
        "repulsion.similarity=image",
        "repulsion.similarity=rotation",
        "comparing whole pictures is retired, no kept run used it (docs/research/log.md)",
    ),
    *(Row(f"optimization.{key}", None, BOUNDED) for key in ("parametrization", "bound", "warmup")),
    *(
        Row(f"fidelity.{key}", None, TERM.format(key=key, plug_in=plug_in))
        for key, plug_in in (("silog", "silog"), ("ssi", "ssi"), ("gradient", "multiscale_gradient"))
    ),
    Row("coupling_scale", None, COUPLING),
    # flags of the scripts
    Row("--90", "data.start_id=10 data.end_id=100", FLAG),
    Row("--1", "data.end_id=1", FLAG),
    Row("--10", "data.end_id=10", FLAG),
    Row("--100", "data.end_id=100", FLAG),
)
