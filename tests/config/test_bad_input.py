"""Wrong input ends in one line that names the key and the value, and touches nothing."""

import json
import shutil
import subprocess
import sys

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

import posterior_sample
from utils.config.check import check
from utils.config.metadata import git_commit
from utils.errors import InputError
from utils.paths import PROJECT

# override, what the line must contain
CASES = [
    ("num_samples=0", "num_samples=0"),
    ("num_samples=two", "num_samples=two"),
    ("num_samples=2.5", "num_samples=2.5"),
    ("first_particle=-1", "first_particle=-1"),
    ("seed=-3", "seed=-3"),
    ("batch_images=0", "batch_images=0"),
    ("pruning_step=1001", "pruning_step=1001"),
    ("pruning_step=-2", "pruning_step=-2"),
    ("optimization_step=2000", "optimization_step=2000"),
    ("repulsion_scale=-0.1", "repulsion_scale=-0.1"),
    ("repulsion_scale=nan", "repulsion_scale=nan"),
    ("gpu=-2", "gpu=-2"),
    ("use_tpu=perhaps", "use_tpu=perhaps"),
    ("shard=2/2", "shard=2/2"),
    ("shard=half", "shard=half"),
    ("name=a/b", "name=a/b"),
    ("name=''", "name="),
    ("task_group=nothing", "task_group=nothing: this task has the groups demo_langevin"),
    ("sampler.annealing_scheduler_config.num_steps=-5", "sampler.annealing_scheduler_config.num_steps=-5"),
    ("sampler.annealing_scheduler_config.sigma_max=-10", "sampler.annealing_scheduler_config.sigma_max=-10"),
    ("sampler.annealing_scheduler_config.sigma_min=20", "sigma_min=20"),
    ("sampler.diffusion_scheduler_config.final_sigma=-1", "sampler.diffusion_scheduler_config.final_sigma=-1"),
    ("sampler.diffusion_scheduler_config.sigma_min=1.0", "sampler.diffusion_scheduler_config.sigma_min=1.0"),
    ("task.demo_langevin.mcmc_sampler_config.num_steps=0", "task.demo_langevin.mcmc_sampler_config.num_steps=0"),
    ("task.demo_langevin.mcmc_sampler_config.mc_algo=gibbs", "mc_algo=gibbs"),
    ("task.demo_langevin.operator.sigma=-0.05", "task.demo_langevin.operator.sigma=-0.05"),
    ("task.demo_langevin.operator.oversample=0", "task.demo_langevin.operator.oversample=0"),
    ("data.start_id=5", "data.end_id=2: must lie above data.start_id=5"),
    ("data.end_id=13", "data.end_id=13"),
    ("data.end_id=0", "data.end_id=0"),
    ("data.root=/no/such/folder", "data.root=/no/such/folder"),
    ("data.resolution=32", "data.resolution=32"),
    ("model.path=/no/such/checkpoint", "checkpoint file /no/such/checkpoint/vae/config.json not found"),
    ("model.timestep_map=guessed", "model.timestep_map=guessed"),
    ("+model.clas_label=3", "model.clas_label=3: this prior has no such key; it has path, resolution, timestep_map"),
    ("+model.prompt=a tree", "model.prompt=a tree: this prior has no such key"),
    ("repulsion.similarity=rotated", "repulsion.similarity=rotated: is none of latent, rotation"),
    ("repulsion.similarity=a..b", "repulsion.similarity=a..b"),
    ("repulsion.similarity=3", "repulsion.similarity=3"),
]


@pytest.mark.parametrize("override, message", CASES)
def test_wrong_value(composed, tiny, tmp_path, override, message):
    with pytest.raises(InputError) as caught:
        posterior_sample.run(composed(*tiny, override))
    line = str(caught.value)
    assert message in line and "\n" not in line
    assert not (tmp_path / "results").exists()


def own_term(name, more="weight:1"):
    return f"+fidelity.terms.mine={{_target_:tests.worlds.own_terms.{name},{more}}}"


@pytest.mark.parametrize("value", ["none", "borrow"])
def test_a_key_that_is_gone_in_a_config_of_before(composed, value):
    old = composed()
    OmegaConf.update(old, "recombination.rescue", value, force_add=True)
    with pytest.raises(InputError, match=rf"^recombination\.rescue={value}: a guess .* was removed .*; leave it out$"):
        check(old)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("portfolio", [{"lr": 2.0}], r"^portfolio=\[\{'lr': 2\.0\}\]: the portfolio is retired .*; leave it out$"),
        (
            "sequential.thresholds",
            {"deviation": 3.0, "stop_step": 300},
            r"^sequential\.thresholds\.stop_step=300: the early stop of particles is retired .*; leave it out$",
        ),
    ],
)
def test_what_is_retired_in_a_config_of_before(composed, key, value, message):
    old = composed("population=sequential")
    OmegaConf.update(old, key, value, force_add=True)
    with pytest.raises(InputError, match=message):
        check(old)


@pytest.mark.parametrize(
    "override, key",
    [
        ("nonsense=1", "nonsense"),
        ("data=nowhere", "data/nowhere"),
        ("sampler.steps=3", "steps"),
        ("task=juggling", "task/juggling"),
    ],
)
def test_unknown_key_or_group_is_named(composed, tiny, override, key):
    with pytest.raises(HydraException) as caught:
        composed(*tiny, override)
    assert key in str(caught.value)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, message",
    [
        (("pruning_step=350", "optimization_step=700"), "optimization_step=700: must not lie above pruning_step=350"),
        (
            ("repulsion_scale=0.3", "repulsion.similarity=latent"),
            "repulsion.bandwidth=1.0: squared distances of latents of 256 numbers",
        ),
        (("repulsion_scale=0.3", "repulsion.end_step=1000"), "repulsion.end_step=1000: the annealing begins at t = 1000"),
        (("fidelity.gaussian=0",), "fidelity: all weights are 0"),
        (("fidelity.poisson=1",), "fidelity.poisson=1.0: give fidelity.photons"),
        (("fidelity.photons=10",), "fidelity.photons=10.0: only poisson and amplitude read it"),
        (
            ("task=hdr", "fidelity.poisson=1", "fidelity.photons=10"),
            "fidelity.poisson=1.0: the measurement of operators.hdr.HighDynamicRange is no magnitude",
        ),
        (("task=hdr", "fidelity.free_scale=true"), "fidelity.free_scale=true: the measurement of .* is no magnitude"),
        (
            ("fidelity.gaussian=0.5", "task.demo_langevin.operator.sigma=0"),
            "fidelity.gaussian: its unit is .*sigma, which is",
        ),
        (
            ("fidelity.gaussian=0", own_term("Squares"), "task.demo_langevin.operator.sigma=0"),
            r"fidelity\.terms\.mine: its unit is .*sigma, which is 0",
        ),
        (("+fidelity.terms.mine={weight:1}",), r"fidelity\.terms\.mine\._target_: field required"),
        (("workers=[1,2]",), r"^workers=\[1, 2\]: input should be"),
        (("repulsion.bandwidth={a:1}",), r"^repulsion\.bandwidth=\{'a': 1\}: input should be"),
        ((own_term("Squares", "weight:-0.5"),), r"fidelity\.terms\.mine\.weight=-0\.5: input should be greater than or equal"),
        (
            ("+fidelity.terms.poisson={_target_:tests.worlds.own_terms.Squares}",),
            r"fidelity\.terms\.poisson: a key of fidelity has this name already",
        ),
        ((own_term("NoTerm"),), r"fidelity\.terms\.mine\._target_=.*NoTerm: is no operators\.term\.Term; subclass it"),
        ((own_term("Nothing"),), r"fidelity\.terms\.mine\._target_=.*Nothing: cannot be built"),
        ((own_term("Squares", "width:3"),), r"fidelity\.terms\.mine\._target_=.*Squares: cannot be built .*width"),
        (
            (own_term("OneNumber"),),
            r"fidelity\.terms\.mine: OneNumber: value gives \(\) for .*the first axis belongs to",
        ),
        (
            (own_term("OneNumberAnImage"),),
            r"fidelity\.terms\.mine: OneNumberAnImage: value gives \(2,\) .*return \(2, 3, 24",
        ),
        ((own_term("CutValue"),), r"fidelity\.terms\.mine: CutValue: value gives a result without a gradient \(.detach\(\) at"),
        ((own_term("OneFloor"),), r"fidelity\.terms\.mine: OneFloor: floor with axis=2 gives \(2,\) .*return \(2, 3\)"),
        ((own_term("OfImages"),), r"fidelity\.terms\.mine: the measurement of PhaseRetrieval is a spectrum and no image"),
        (
            (own_term("Whole"), "recombination_step=900"),
            r"fidelity\.terms\.mine: Whole is no sum over channels .*recombination_step=900 needs it",
        ),
    ],
)
def test_values_that_do_not_go_together(composed, tiny, overrides, message):
    with pytest.raises(InputError, match=message):
        posterior_sample.run(composed(*tiny, *overrides))


@pytest.mark.parametrize("missing", ["vqvae/block_out_channels", "unet/sample_size"])
def test_a_network_config_without_a_key_is_one_line(composed, tiny, tiny_prior, tmp_path, missing):
    folder = tmp_path / "prior"
    shutil.copytree(tiny_prior, folder)
    part, key = missing.split("/")
    path = folder / part / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(InputError, match=f"is damaged .it has no {key}"):
        posterior_sample.run(composed(*tiny, f"model.path={folder}"))


@pytest.mark.heavy
def test_every_operator_can_be_set_in_its_own_task_group(composed):
    for task in sorted(path.stem for path in (PROJECT / "configs" / "task").glob("*.yaml")):
        groups = [group for group, content in composed(f"task={task}").task.items() if content is not None]
        for group in groups:
            changed = composed(f"task={task}", f"task.{group}.operator.sigma=0.77").task
            assert [name for name in groups if changed[name].operator.sigma == 0.77] == [group]


@pytest.mark.heavy
def test_the_home_folder_is_found(composed, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check(composed(*tiny, "save_dir='~/x'")).folder == tmp_path / "x" / "run"


def test_a_machine_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


@pytest.mark.heavy
def test_empty_image_folder(composed, tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no PNG, JPEG, TIFF, WEBP or BMP image"):
        posterior_sample.run(composed(*tiny, f"data.root={tmp_path}/empty"))


@pytest.mark.heavy
def test_a_truncated_image_among_good_ones(composed, tiny, tiny_images, tmp_path):
    (tmp_path / "images").mkdir()
    for path in sorted(tiny_images.iterdir())[:3]:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    bad = tmp_path / "images" / "00001.png"
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(InputError, match="00001.png cannot be read"):
        posterior_sample.run(composed(*tiny, f"data.root={tmp_path}/images"))
    assert not (tmp_path / "results").exists()


@pytest.mark.heavy
def test_unwritable_save_dir(composed, tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=f"save_dir={tmp_path}/file/results"):
        posterior_sample.run(composed(*tiny, f"save_dir={tmp_path}/file/results"))


FOREIGN = ["thesis.tex", "records/00000.npz", "samples/00000_p0.png", ".hydra/config.yaml", "config.yaml", ".draft.partial"]
OF_DAPS = "{name: run, save_dir: results, task_group: ldm, sampler: {}, data: {}, num_runs: 4}"


@pytest.mark.heavy
@pytest.mark.parametrize("resume", ["true", "false"])
@pytest.mark.parametrize("file", FOREIGN)
def test_a_folder_with_other_things_is_left_alone(composed, tiny, tmp_path, file, resume):
    path = tmp_path / "results" / "run" / file
    path.parent.mkdir(parents=True)
    path.write_text(OF_DAPS)
    with pytest.raises(InputError, match="holds something other than a run"):
        posterior_sample.run(composed(*tiny, f"resume={resume}"))
    assert [p for p in (tmp_path / "results").rglob("*") if p.is_file()] == [path] and path.read_text() == OF_DAPS


def command_line(*overrides, cwd):
    """The program in a process of its own, without torch: importing it would raise."""
    program = str(PROJECT / "posterior_sample.py")
    start = f"import runpy, sys; sys.modules['torch'] = None; sys.argv[0] = {program!r}; sys.path.insert(0, {str(PROJECT)!r}); "
    start += f"runpy.run_path({program!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", start, *overrides], capture_output=True, text=True, cwd=cwd)


@pytest.mark.program
def test_the_command_line_ends_in_one_line_with_status_2_before_torch(tmp_path):
    done = command_line("num_samples=0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: num_samples=0: input should be greater than or equal to 1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.program
def test_an_experiment_of_ones_own_is_told_the_line_that_it_lacks(tmp_path):
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text("# mine.yaml\n# @package _global_\nnum_samples: 2\n")
    done = command_line("--config-dir", "configs", "experiment=mine", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == (
        "error: experiment: has no such key; a file of configs/experiment must begin with the line # @package _global_\n"
    )


@pytest.mark.program
def test_hydras_own_errors_are_readable(tmp_path):
    done = command_line("no_such_key=1", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr == "error: no_such_key=1: there is no such key; --cfg job shows every key\n"


@pytest.mark.parametrize(
    "data, model, line",
    [
        ("demo-scenes", "demo-faces", "holds scenes, by its name, and model.path=checkpoints/demo-faces is a prior of faces"),
        ("demo-faces", "demo-scenes", "holds faces"),
        ("demo-photos", "demo-faces", "holds photographs"),
        ("cifar10", "demo-scenes", "holds photographs"),
        ("demo-faces", "demo-faces", None),
        ("demo-scenes", "demo-scenes", None),
        ("demo-photos", "natural-32", None),
    ],
)
def test_data_and_a_prior_of_different_kinds_are_one_warning(composed, data, model, line):
    notes = check(composed(f"data={data}", f"model={model}", "data.resolution=${model.resolution}")).composition.notes
    assert [line in note for note in notes] == [True] * (line is not None)


def test_a_folder_of_ones_own_is_of_no_kind(composed):
    assert check(composed("data=folder", "data.root=/my/images", "model=demo-faces")).composition.notes == ()
