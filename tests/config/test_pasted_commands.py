"""Commands of DAPS and of earlier code, and mistakes that Hydra answers in many lines: one line says what to write."""

import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from utils.config.compose import compose
from utils.config.overrides import check_renamed, numbers_as_text
from utils.config.renamed import ROWS
from utils.config.settings import ONE_DEVICE, Settings
from utils.errors import InputError
from utils.paths import PROJECT

PROGRAM = str(PROJECT / "posterior_sample.py")
DATA = ", ".join(sorted(path.stem for path in (PROJECT / "configs" / "data").glob("*.yaml")))
NO_PLUS = "groups stand in the defaults list, so they take no +"
NO_PIXELS = "this program samples in the latents of a prior, not in pixels"
NO_WANDB = "Weights & Biases is a callback (pip install -e '.[wandb]'; docs/guide/running.md)"
PLUGIN = (
    "the coupling of parents and children is retired to a plug-in, mechanisms.coupling.share under --config-dir "
    "docs/examples/plugins experiment=coupling (docs/research/log.md)"
)
NO_GUESS = "a guess where no particle has a channel did not help and was removed (docs/research/measured/recombination.md)"
NO_PORTFOLIO = "the portfolio is retired (it did not beat copies of its best entry; docs/research/log.md)"
NO_STOP = "the early stop of particles is retired (it spared few passes and stopped good ones; docs/research/log.md)"
NO_FREE = "values kept out of the fit are retired, as their loss picks worse (docs/research/log.md)"
NO_CLOCK = "the clock by noise levels is retired, no kept run used it (docs/research/log.md); timesteps are 1000 (N - i) / N"
NO_CHOICE = "the choice by correlation is retired, it left more particles failed (docs/research/log.md); the prior chooses"
NO_DECAY = "this decay is retired, no kept run used it (docs/research/log.md); there are linear and cosine"
TRAJECTORY = "trajectories are kept as trace.png and, as numbers, in the records"
QUOTES = "characters such as = ( ) { } : and commas need quotes"
KEYS = "there is no such key; --cfg job shows every key"

PASTED = [
    # the README of DAPS
    (
        "+data=demo-ffhq +model=ffhq256ddpm +task=phase_retrieval +sampler=edm_daps task_group=pixel save_dir=results "
        "num_runs=4 sampler.diffusion_scheduler_config.num_steps=5 sampler.annealing_scheduler_config.num_steps=200 "
        "batch_size=10 data.start_id=0 data.end_id=10 name=phase_retrieval_demo gpu=0",
        "+data=demo-ffhq +model=ffhq256ddpm +task=phase_retrieval +sampler=edm_daps task_group=pixel num_runs=4 batch_size=10: "
        "this program writes them otherwise; write data=demo-ffhq model=ffhq256ldm task=phase_retrieval "
        f"sampler=latent_edm_daps task_group=ldm num_samples=4 batch_images=10; {NO_PLUS}; {NO_PIXELS}",
    ),
    # commands/ldm_ffhq.sh of DAPS
    (
        "+data=test-ffhq +model=ffhq256ldm +task=hdr +sampler=latent_edm_daps task_group=ldm save_dir=results/ldm/ffhq "
        "num_runs=1 batch_size=10 name=hdr gpu=2",
        "+data=test-ffhq +model=ffhq256ldm +task=hdr +sampler=latent_edm_daps num_runs=1 batch_size=10: this program writes "
        "them otherwise; write data=test-ffhq model=ffhq256ldm task=hdr sampler=latent_edm_daps num_samples=1 "
        f"batch_images=10; {NO_PLUS}",
    ),
    # the legacy branch of DAPS
    (
        "+data=demo +task=phase_retrieval_latent task.likelihood_estimator_config.ode_step=5 sampler.num_steps=200 +seed=42",
        "+data=demo +task=phase_retrieval_latent task.likelihood_estimator_config.ode_step=5 sampler.num_steps=200 +seed=42: "
        "this program writes them otherwise; write data=demo-ffhq task=phase_retrieval task_group=ldm "
        "sampler.diffusion_scheduler_config.num_steps=5 sampler.annealing_scheduler_config.num_steps=200 seed=42; "
        "the task group says which prior the rates are for; seed stands in the config already",
    ),
    # exp4_optimization.sh of the earlier code
    (
        "num_samples=4 repulsion_scale=10 repulsion_sigma_break=1.0 repulsion_schedule=constant pruning_step=-1 "
        "hard_data_consistency=1 optimization_lr=5e-3 optimization_eps=1e-3 optimization_max_iters=500",
        "repulsion_sigma_break=1.0 repulsion_schedule=constant hard_data_consistency=1 optimization_lr=5e-3 "
        "optimization_eps=1e-3 optimization_max_iters=500: this program writes them otherwise; write repulsion.end_step=500 "
        "repulsion.decay=linear optimization_step=200 optimization.lr=5e-3 optimization.stop_factor=1.0 "
        "optimization.max_iterations=500; the repulsion ends at a timestep of 1000, not at a sigma (500 as in experiment 1), "
        f"and repulsion_scale is relative (0.15 there); {NO_DECAY}; hard data consistency acts from a timestep of 1000 on, "
        "optimization_step (200 as in experiment 4); the optimisation stops at a mean squared residual relative to the "
        "noise, stop_factor times sigma^2",
    ),
    ("num_runs=4", "num_runs=4: this program calls it num_samples; write num_samples=4"),
    ("+num_runs=4", "+num_runs=4: this program calls it num_samples; write num_samples=4"),
    ("-m num_runs=1,2", "num_runs=1,2: this program calls it num_samples; write num_samples=1,2"),
    ("seed=1 -m num_runs=1,2", "num_runs=1,2: this program calls it num_samples; write num_samples=1,2"),
    ("batch_size=10", "batch_size=10: this program calls it batch_images; write batch_images=10"),
    ("+data=demo-ffhq", f"+data=demo-ffhq: {NO_PLUS}; write data=demo-ffhq"),
    ("++model=ffhq256ldm", f"++model=ffhq256ldm: {NO_PLUS}; write model=ffhq256ldm"),
    ("model=ffhq256ddpm", f"model=ffhq256ddpm: {NO_PIXELS}; write model=ffhq256ldm"),
    ("task_group=pixel", f"task_group=pixel: {NO_PIXELS}; write task_group=ldm"),
    ("wandb=false", f"wandb=false: {NO_WANDB}; leave it out"),
    ("~wandb", f"~wandb: {NO_WANDB}; leave it out"),
    (
        "wandb=True project_name=DAPS save_traj=False",
        "wandb=True project_name=DAPS save_traj=False: this program writes them otherwise; "
        f"write callbacks=wandb callbacks.wandb.project=DAPS; leave out save_traj=False; {NO_WANDB}; {TRAJECTORY}",
    ),
    ("save_traj=True", f"save_traj=True: {TRAJECTORY}; leave it out"),
    ("save_samples=True", "save_samples=True: every particle is saved, in save_dir/name/samples; leave it out"),
    (
        "eval_fn_list=['psnr','lpips']",
        "eval_fn_list=[psnr,lpips]: PSNR, SSIM and LPIPS are always computed and shown; leave it out",
    ),
    ("model.model_id=some/one", "model.model_id=some/one: this program calls it model.path; write model.path=some/one"),
    (
        "task=hdr task_group=sd task.lgvd_config.lr=1e-4",
        "task.lgvd_config.lr=1e-4: this program calls it task.sd.mcmc_sampler_config.lr; "
        "write task.sd.mcmc_sampler_config.lr=1e-4",
    ),
    (
        "hard_data_consistency=-1",
        "hard_data_consistency=-1: its switch is optimization_step, -1 for off; write optimization_step=-1",
    ),
    (
        "repulsion_schedule=linear",
        "repulsion_schedule=linear: this program calls it repulsion.decay; write repulsion.decay=linear",
    ),
    ("recombination.rescue=borrow", f"recombination.rescue=borrow: {NO_GUESS}; leave it out"),
    ("+recombination.rescue=none", f"+recombination.rescue=none: {NO_GUESS}; leave it out"),
    ("'portfolio=[{},{lr:0.7}]'", f"portfolio=[{{}},{{lr:0.7}}]: {NO_PORTFOLIO}; leave it out"),
    ("+portfolio=[]", f"+portfolio=[]: {NO_PORTFOLIO}; leave it out"),
    ("sequential.thresholds.stop_step=300", f"sequential.thresholds.stop_step=300: {NO_STOP}; leave it out"),
    (
        "sequential.thresholds={deviation:3,stop_step:700,stop_deviation:9}",
        f"sequential.thresholds={{deviation:3,stop_step:700,stop_deviation:9}}: {NO_STOP}, "
        "so three thresholds are left, for example these; "
        "write sequential.thresholds={deviation:3.0,denoising:null,agreement:0.95}",
    ),
    ("free_fraction=0.05", f"free_fraction=0.05: {NO_FREE}; leave it out"),
    ("selection.rule=loss", f"selection.rule=loss: {NO_FREE}; leave it out"),
    (
        "free_fraction=0.05 selection.rule=free_loss",
        "free_fraction=0.05 selection.rule=free_loss: this program writes them otherwise; "
        f"leave out free_fraction=0.05 selection.rule=free_loss; {NO_FREE}",
    ),
    ("step_clock=progress", f"step_clock=progress: {NO_CLOCK}; leave it out"),
    ("recombination.choice=correlation", f"recombination.choice=correlation: {NO_CHOICE}; leave it out"),
    (
        "repulsion.similarity=image",
        "repulsion.similarity=image: comparing whole pictures is retired, no kept run used it (docs/research/log.md); "
        "write repulsion.similarity=rotation",
    ),
    ("repulsion.decay=constant", f"repulsion.decay=constant: {NO_DECAY}; write repulsion.decay=linear"),
    ("repulsion.decay=quadratic", f"repulsion.decay=quadratic: {NO_DECAY}; write repulsion.decay=linear"),
    ("coupling_scale=0", f"coupling_scale=0: {PLUGIN}; leave it out"),
    ("children=2 coupling_scale=0.2", f"coupling_scale=0.2: {PLUGIN}; leave it out"),
    *(
        (
            f"optimization.{key}",
            f"optimization.{key}: the bounded residual is a plug-in (docs/examples/plugins/bounded_residual.py) with the keys "
            "of its YAML: --config-dir docs/examples/plugins experiment=bounded_residual; leave it out",
        )
        for key in ("parametrization=residual", "bound=0.1", "warmup=3")
    ),
    *(
        (
            f"fidelity.{key}=0.5",
            f"fidelity.{key}=0.5: the term {key} is a plug-in (docs/examples/plugins/{plug_in}.py) with a weight in its YAML: "
            f"--config-dir docs/examples/plugins experiment={plug_in}; leave it out",
        )
        for key, plug_in in (("silog", "silog"), ("ssi", "ssi"), ("gradient", "multiscale_gradient"))
    ),
    (
        "--90 gpu=-1",
        "--90: the number of images is a flag of the scripts in commands_gpu/ alone; write data.start_id=10 data.end_id=100",
    ),
    # mistakes that Hydra itself answers
    ("nonsense=1", f"nonsense=1: {KEYS}"),
    ("+nonsense=1", f"nonsense=1: {KEYS}"),
    ("num_sample=3", "num_sample=3: there is no such key; did you mean num_samples?"),
    (
        "task.demo_langevin.mcmc_sampler_config.num_step=3",
        "task.demo_langevin.mcmc_sampler_config.num_step=3: there is no such key; "
        "did you mean task.demo_langevin.mcmc_sampler_config.num_steps?",
    ),
    ("hydra.nonsense=1", "hydra.nonsense=1: there is no such key; --cfg hydra shows every key"),
    ("+seed=3", "+seed=3: seed stands in the config already; write seed=3"),
    ("+num_samples=3", "+num_samples=3: num_samples stands in the config already; write num_samples=3"),
    ("~nonsense", "~nonsense: could not delete from config. 'nonsense' does not exist."),
    ("data=nowhere", f"data=nowhere: is no name of a configuration; in configs/data there are {DATA}"),
    ("data=[demo-faces,x]", f"data=[demo-faces,x]: is no name of a configuration; in configs/data there are {DATA}"),
    ("~data", f"~data: every run needs one; choose it with data=..., in configs/data there are {DATA}"),
    ("data.root=/a=b", f"data.root=/a=b: {QUOTES}; write 'data.root=\"/a=b\"'"),
    ("name=(", f"name=(: {QUOTES}; write 'name=\"(\"'"),
    ("seed", "seed: has no value; write seed=..."),
    ("' ' seed=3", "' ': an empty argument; a backslash that continues a line must be its last character"),
    ("seed=1,2", "seed=1,2: several values need -m"),
    ("name=1,2", "name=1,2: several values need -m, and one value with a comma quotes: 'name=\"1,2\"'"),
    ("gpu=0,1", f"gpu=0,1: {ONE_DEVICE}"),
    ("gpu='\"0,1\"'", f"gpu=0,1: {ONE_DEVICE}"),
    ("gpu=[0,1]", f"gpu=[0, 1]: {ONE_DEVICE}"),
    (
        "hydra.run.dir=/dev/null/x",
        "hydra.run.dir=/dev/null/x: cannot be made (Not a directory); leave it out, results go to save_dir/name",
    ),
    (
        "-m hydra.sweep.dir=/dev/null/x seed=1,2",
        "hydra.sweep.dir=/dev/null/x: cannot be made (Not a directory); leave it out, results go to save_dir/name",
    ),
    ("seed=3 -m gpu=-1", "gpu=-1: stands apart from the other key=value; write the flags before or after all of them"),
    (
        "--num_samples=4",
        "--num_samples=4: there is no such flag; keys are written without dashes, and --hydra-help lists the flags",
    ),
    ("--resolve", "--resolve: goes with --cfg; write --cfg job --resolve"),
    ("-cd /no/where", "Additional config directory '/no/where' not found"),
]


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


@pytest.mark.parametrize("command, line", PASTED)
def test_a_pasted_command_ends_in_one_line_with_status_2_and_leaves_nothing(in_folder, monkeypatch, capsys, command, line):
    monkeypatch.setattr(sys, "argv", [PROGRAM, *shlex.split(command)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(PROGRAM, run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")
    assert list(in_folder.iterdir()) == [] and "HYDRA_FULL_ERROR" not in os.environ


@pytest.mark.heavy
def test_a_launcher_of_slurm_on_another_machine_is_one_line(in_folder, monkeypatch, capsys):
    pytest.importorskip("submitit")
    monkeypatch.setattr("shutil.which", lambda name, *_: None)
    monkeypatch.setattr(sys, "argv", [PROGRAM, "-m", "hydra/launcher=submitit_slurm", "shard=0/2,1/2", "gpu=-1"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(PROGRAM, run_name="__main__")
    line = "hydra/launcher=submitit_slurm: this machine has no srun, so it is on no Slurm cluster; leave it out"
    assert (ended.value.code, capsys.readouterr().err) == (2, f"error: {line}\n")


@pytest.mark.program
@pytest.mark.parametrize(
    "program, command, line",
    [
        (PROGRAM, "+data=demo-ffhq", f"+data=demo-ffhq: {NO_PLUS}; write data=demo-ffhq"),
        (PROGRAM, "hydra.run.dir=/dev/null/x", "hydra.run.dir=/dev/null/x: cannot be made (Not a directory); leave it out, "),
        ("tools/benchmark.py", "num_runs=4", "num_runs=4: this program calls it num_samples; write num_samples=4"),
        ("tools/benchmark.py", "--parts nonsense=1", f"nonsense=1: {KEYS}"),
    ],
)
def test_the_programs_answer_before_torch(in_folder, program, command, line):
    path = str(PROJECT / program)
    start = (
        f"import runpy, sys; sys.modules['torch'] = None; sys.argv[0] = {path!r}; runpy.run_path({path!r}, run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", start, *shlex.split(command)], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert list(in_folder.iterdir()) == []


@pytest.mark.program
@pytest.mark.parametrize(
    "flags, shown",
    [
        ("--help", "Configuration groups"),
        ("--cfg job seed=7", "seed: 7"),
        ("--info searchpath", "configs"),
        ("--version", "Hydra"),
    ],
)
def test_hydras_flags_still_answer(in_folder, flags, shown):
    done = subprocess.run([sys.executable, PROGRAM, *flags.split()], capture_output=True, text=True)
    assert done.returncode == 0 and shown in done.stdout and done.stderr == ""


@pytest.mark.heavy
def test_configurations_of_a_folder_of_ones_own_are_found(in_folder, monkeypatch, capsys):
    (in_folder / "data").mkdir()
    (in_folder / "data" / "mine.yaml").write_text("defaults: [folder]\nroot: /my/images\n")
    monkeypatch.setattr(sys, "argv", [PROGRAM, "--config-dir", str(in_folder), "data=mine", "--cfg", "job", "-p", "data"])
    runpy.run_path(PROGRAM, run_name="__main__")
    assert "root: /my/images" in capsys.readouterr().out


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, names",
    [
        (["name=2024_01_15"], ["2024_01_15"]),
        (["name=1.10"], ["1.10"]),
        (["name=true"], ["true"]),
        (["name=07"], ["07"]),
        (["-m", "name=1_0,b,1.10"], ["1_0", "b", "1.10"]),
        (["-m", "seed=1,2", "name=${seed}"], ["1", "2"]),
        (["-m", "seed=1,2", "name=1_${seed}"], ["1_1", "1_2"]),
    ],
)
def test_a_name_stays_as_it_is_written(in_folder, monkeypatch, overrides, names):
    run = []

    def ends(settings):
        run.append(settings.name)
        raise InputError("that is all")

    monkeypatch.setattr("utils.data.select_images", ends)
    monkeypatch.setattr(sys, "argv", [PROGRAM, *overrides, "gpu=-1", f"hydra.sweep.dir={in_folder}"])
    with pytest.raises((SystemExit, InputError)):
        runpy.run_path(PROGRAM, run_name="__main__")
    assert run == names


def test_numbers_are_text_where_a_key_takes_text_alone():
    assert numbers_as_text("data.root=2024_01") == 'data.root="2024_01"' and numbers_as_text("seed=1_0") == "seed=1_0"
    assert numbers_as_text("batch_images=1_0") == "batch_images=1_0" and numbers_as_text("mine.x=1_0") == "mine.x=1_0"
    assert numbers_as_text("chain_check=false") == "chain_check=false" and numbers_as_text("data.mask=1_0") == "data.mask=1_0"
    assert numbers_as_text("name=1_0,b") == 'name="1_0",b' and numbers_as_text("name=a,b") == "name=a,b"


@pytest.mark.heavy
def test_a_mistake_of_the_program_keeps_its_traceback(in_folder, monkeypatch):
    def fails(settings):
        raise OSError(5, "a mistake of ours", "x")

    monkeypatch.setattr("utils.data.select_images", fails)
    monkeypatch.setattr(sys, "argv", [PROGRAM, "gpu=-1"])
    with pytest.raises(OSError, match="a mistake of ours"):
        runpy.run_path(PROGRAM, run_name="__main__")


def typed(*overrides):
    """The settings of some overrides, before anything is looked for on the disk."""
    return Settings.model_validate(OmegaConf.to_container(compose(overrides), resolve=True))


def test_what_is_the_same_in_daps_is_accepted():
    same = "task=phase_retrieval sampler=latent_edm_daps data.start_id=0 data.end_id=10 save_dir=results name=x gpu=0 seed=42"
    prior = "data=demo-ffhq model=ffhq256ldm task_group=ldm sampler.annealing_scheduler_config.num_steps=50"
    settings = typed(*same.split(), *prior.split())
    assert (settings.task_group, settings.data.start_id, settings.data.end_id) == ("ldm", 0, 10)


VALUES = {
    "name": "hmc",
    "sigma_min": "0.2",
    "schedule": "cosine",
    "resolution": "256",
    "model_id": "some/one",
    "path": "some/one",
}


def example(row):
    """An override that a row answers."""
    if "=" in row.old or row.old.startswith("--"):
        return row.old.replace("=*", "=hdr").replace("[Ff]", "F")
    key = row.old.replace("operator.*", "operator.sigma").replace("_config.*", "_config.lr")
    return f"{key}={next((value for end, value in VALUES.items() if key.endswith(end)), 1)}"


@pytest.mark.heavy
def test_everything_the_rows_say_to_write_is_a_valid_command():
    with pytest.raises(InputError) as caught:
        check_renamed(["task_group=ldm", *(example(row) for row in ROWS if row.write)])
    written = str(caught.value).partition("; write ")[2].partition("; ")[0].split()
    assert len(written) >= sum(row.write is not None for row in ROWS)
    choices = [text for text in written if re.match(r"(data|model|task|sampler)=", text)]
    for text in choices:
        compose([text])
    typed("data=demo-ffhq", "model=ffhq256ldm", *(text for text in written if text not in choices))


@pytest.mark.heavy
def test_no_key_of_today_is_taken_for_an_old_one():
    def keys(node, prefix=""):
        for name, value in node.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{name}.")

    files = [path for group in ("data", "model", "task", "sampler") for path in (PROJECT / "configs" / group).glob("*.yaml")]
    loaded = {"task_group=demo_langevin": OmegaConf.to_container(compose([]))}
    loaded |= {f"{f.parent.name}={f.stem}": {f.parent.name: OmegaConf.to_container(OmegaConf.load(f))} for f in files}
    today = {choice: list(keys(config)) for choice, config in loaded.items()}
    assert sum(map(len, today.values())) > 100
    for choice, names in today.items():  # an algorithm's own keys are those of a command that chooses it
        check_renamed([choice, *names])


def test_the_quotes_that_a_line_proposes_are_read_back_as_the_value():
    for value in ("/a=b", "a\\b=c", 'say "x"=y', "(", "${", "it's=1"):
        with pytest.raises(InputError) as caught:
            compose([f"data.root={value}"])
        [proposed] = shlex.split(str(caught.value).rpartition("; write ")[2])
        assert OverridesParser.create().parse_override(proposed).value() == value
