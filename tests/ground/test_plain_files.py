"""JSON and YAML of others: every kind of file in every wrong shape ends in one line that names it, at once."""

import json
import os
import shutil
from copy import deepcopy

import pytest
import yaml

from tests.worlds.synthetic import write_run
from tools import status
from tools.demo_prior.training_images import ImageFolder
from tools.evidence import project_tables
from utils.analysis import runs
from utils.analysis.calibrated import spread_sentence
from utils.config import levels
from utils.config.compose import compose
from utils.config.model import check_model
from utils.config.overrides import check_command_line
from utils.config.sections import Model
from utils.errors import InputError
from utils.plain_files import DEEPEST, MOST_YAML, Unreadable, parse_json, parse_yaml, read_json, read_regular, read_yaml
from utils.population.settings import read_certificate
from utils.records.folder import RunFolder
from utils.weights import read_configs

LABELS = [["0", "180"], ["failed", "0"]]
BOMB = b"\n".join([b"b0: &b0 {x: 1}", *(b"b%d: &b%d [%s]" % (i, i, b", ".join([b"*b%d" % (i - 1)] * 9)) for i in range(1, 10))])

SHAPES = {
    "null": b"null",
    "a list": b"[]",
    "a number": b"3",
    "a text": b'"x"',
    "other names": b'{"x": 1}',
    "nothing": b"",
    "half": b'{"a": [1',
    "no text": b"\xff\xfe\x00",
    "a thousand brackets": b"[" * 1000 + b"]" * 1000,
    "a hundred thousand": b"[" * 100_000,
    "a number without end": b'{"a": ' + b"9" * 10_000 + b"}",
}
BESIDE = {  # what else a whole config may hold
    "aliases": BOMB,
    "a tag": b"more: !!set {a}",
    "keys that are lists": b"? [1]\n: 2",
    "no such date": b"more: 2001-13-45",
    "deep": b"more: " + b"[" * 100 + b"]" * 100,
    "far too long": b"# " + b"x" * MOST_YAML,
}


@pytest.fixture
def run_folder(tmp_path, composed):
    return write_run(tmp_path, composed, LABELS)


@pytest.fixture
def prior(tiny_prior, tmp_path):
    return shutil.copytree(tiny_prior, tmp_path / "prior")


def trained_on(tmp_path, tiny_images):
    images = ImageFolder(tiny_images, 16, 0.5, tmp_path)
    return images.prepare


def model_of(prior):
    return Model.model_validate(
        {"_target_": "utils.priors.latent_diffusion.load_pipeline", "path": str(prior), "resolution": 16}
        | {"timestep_map": "trained", "source": "nowhere"}
    )


def kinds(folder, prior, tiny_images, monkeypatch):
    """{file: what reads it}."""
    place = folder.parent
    monkeypatch.setattr(levels, "MODELS", place)
    qualities = project_tables.Spec(name="q", folders=["quality.json"], kind="prior")
    return {
        folder / "metrics.json": lambda: runs.load(folder / "metrics.json"),
        folder / "trivial.json": lambda: runs.load(folder).trivial,
        folder.with_name(f"{folder.name}_calibration.json"): lambda: spread_sentence(folder, "x"),
        place / "certificate.json": lambda: read_certificate(place / "certificate.json"),
        place / "quality.json": lambda: project_tables.prior_table(qualities, place),
        place / "data.json": trained_on(place, tiny_images),
        **{prior / f"{part}/config.json": lambda: check_model(model_of(prior)) for part in ("unet", "vqvae")},
        prior / "scheduler/scheduler_config.json": lambda: check_model(model_of(prior)),
        prior / "conversion.json": lambda: check_model(model_of(prior)),
        place / "own.yaml": lambda: levels.model_node("own"),
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_file_in_every_shape_is_one_line(run_folder, prior, tiny_images, monkeypatch, shape):
    for path, read in kinds(run_folder, prior, tiny_images, monkeypatch).items():
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(SHAPES[shape])
        if (path.name, shape) != ("conversion.json", "other names"):  # of one that says nothing nothing is asked
            with pytest.raises(InputError) as caught:
                read()
            assert path.stem in str(caught.value) and "\n" not in str(caught.value), path
        path.unlink() if before is None else path.write_bytes(before)


@pytest.mark.parametrize("shape", [*SHAPES, *BESIDE])
def test_a_config_of_any_shape_is_one_line_for_all_who_read_it(run_folder, shape):
    path = run_folder / "config.yaml"
    path.write_bytes(SHAPES[shape] if shape in SHAPES else BESIDE[shape] + b"\n" + path.read_bytes())
    readers = (
        lambda: runs.load(run_folder),
        lambda: list(status.describe(run_folder)),
        lambda: RunFolder(run_folder, "x").look_over({}),  # without records, which would tell what the run is
    )
    for read in readers:
        if read is readers[-1]:
            shutil.rmtree(run_folder / "records", ignore_errors=True)
        with pytest.raises(InputError) as caught:
            read()
        assert "config.yaml" in str(caught.value) and "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


VALUES = ("null", "[1]", "x", "{a: 1}", "-7", "1e999", ".nan")
KEYS = ("data", "data.root", "pruning_step", "optimization_step", "repulsion", "repulsion.end_step", "repulsion_scale")


@pytest.mark.parametrize("value", VALUES)
def test_a_config_with_another_value_is_read_or_is_one_line(run_folder, value):
    path, refused = run_folder / "config.yaml", 0
    whole = read_yaml(path)
    for key in KEYS:
        inner = changed = deepcopy(whole)
        for part in key.split(".")[:-1]:
            inner = inner[part]
        inner[key.rpartition(".")[2]] = yaml.safe_load(value)
        path.write_text(yaml.safe_dump(changed))
        try:
            run = runs.load(run_folder)
            assert run.units and runs.events(run) is not None and run.timesteps
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused >= 6


@pytest.mark.parametrize(
    "part, change, reason",
    [
        ("unet", {"block_out_channels": 32}, "block_out_channels: input should be a valid list"),
        ("unet", {"block_out_channels": [60_000] * 3}, "far larger than the weights"),
        ("unet", {"time_embedding_dim": 60_000}, "far larger than the weights"),
        ("unet", {"layers_per_block": 10**9}, "layers_per_block"),
        ("unet", {"norm_eps": "x"}, "norm_eps: input should be a valid number"),
        ("vqvae", {"scaling_factor": "one"}, "scaling_factor: input should be a valid number"),
        ("vqvae", {"scaling_factor": 0}, "scaling_factor: input should be greater than 0"),
        ("scheduler", {"num_train_timesteps": 10**12}, "num_train_timesteps: input should be less than"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused_before_they_are_made(prior, part, change, reason):
    path = prior / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=reason):
        check_model(model_of(prior))
    with pytest.raises(Unreadable, match=reason):
        read_configs(prior)


@pytest.mark.parametrize("change", [{"act_fn": 3}, {"up_block_types": "x"}, {"down_block_types": None}])
def test_what_only_the_library_knows_is_one_line_too(prior, change):
    from utils.priors.latent_diffusion import load_parts

    path = prior / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_parts(prior)
    assert "\n" not in str(caught.value)


NESTED = ("[" * 2000 + "]" * 2000, "{a:" * 2000 + "1" + "}" * 2000, "${" * 2000 + "}" * 2000, "f(" * 99)


@pytest.mark.parametrize("value", NESTED)
def test_overrides_nested_without_end_are_one_line(value):
    for override in (f"name={value}", f"+extra={value}", f"+{'a.' * 2000}b=1"):
        for read in (compose, check_command_line):
            with pytest.raises(InputError, match="write it flatter") as caught:
                read([override])
            assert len(str(caught.value)) < 200


def test_as_deep_as_is_allowed_is_read_and_one_more_is_not():
    for parse in (parse_json, lambda text: parse_yaml(text.encode())):
        assert parse("[" * DEEPEST + "]" * DEEPEST) is not None
        with pytest.raises(Unreadable, match="deep"):
            parse("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2))


def test_only_files_of_a_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(Unreadable, match="is no file"):
            read_regular(place, 10)
    (tmp_path / "long.json").write_bytes(b"[1, 2]")
    assert read_json(tmp_path / "long.json", list[int], most=6) == [1, 2]
    with pytest.raises(Unreadable, match="has 6 bytes"):
        read_json(tmp_path / "long.json", list[int], most=5)
    with pytest.raises(OSError):
        read_json(tmp_path)
