"""Malformed overrides and record files, drawn by hypothesis: each ends in one line or does no harm, none loses a record."""

import io
import json
import logging
import random
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.worlds import runs
from utils.config.check import check
from utils.config.compose import compose
from utils.data import select_images
from utils.errors import InputError
from utils.records.files import read_record
from utils.records.folder import RunFolder
from utils.running.ranks import Rank

pytestmark = pytest.mark.program

DISTINCT = 200
# floats without subnormals: the sampler has the processor flush them to zero, of which hypothesis complains
ALWAYS_THE_SAME = settings(
    max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior, no_pictures):
    return runs.Place(tmp_path_factory.mktemp("malformed"), tiny_prior, images=3)


# --- overrides ---------------------------------------------------------------------------------------------------

KEYS = [
    "num_samples",
    "first_particle",
    "task_group",
    "seed",
    "repulsion_scale",
    "pruning_step",
    "pruning_keep",
    "optimization_step",
    "repulsion.decay",
    "repulsion.end_step",
    "pruning.fill",
    "pruning.loss_tolerance",
    "optimization.every",
    "optimization.max_move",
    "use_tpu",
    "gpu",
    "batch_images",
    "max_particles_per_pass",
    "gradient_checkpointing",
    "shard",
    "save_dir",
    "name",
    "resume",
    "success.threshold_db",
    "success.margin_db",
    "data.root",
    "data.resolution",
    "data.start_id",
    "data.end_id",
    "model.path",
    "model.timestep_map",
    "model.resolution",
    "model._target_",
    "sampler.annealing_scheduler_config.num_steps",
    "sampler.annealing_scheduler_config.sigma_max",
    "sampler.annealing_scheduler_config.sigma_min",
    "sampler.diffusion_scheduler_config.num_steps",
    "sampler.diffusion_scheduler_config.sigma_min",
    "task.demo_langevin.operator.sigma",
    "task.demo_langevin.operator.oversample",
    "task.demo_langevin.mcmc_sampler_config.mc_algo",
    "task.demo_langevin.mcmc_sampler_config.num_steps",
    "task.demo_langevin.mcmc_sampler_config.lr",
    "task.demo_langevin.mcmc_sampler_config.tau",
    "task.demo_langevin.mcmc_sampler_config.momentum",
    "no_such_key",
    "num_runs",
    "wandb",
    "task.lgvd_config.lr",
    "data.no_such_key",
    "data",
    "model",
    "task",
    "sampler",
    "experiment",
    "hydra/launcher",
    "~seed",
    "~data.root",
    "+seed",
    "+extra",
    "++data.extra",
    "hydra.no_such_key",
    "",
]
VALUES = st.one_of(
    st.sampled_from(
        [
            "-1",
            "-7",
            "0",
            "1.5",
            "1e400",
            "nan",
            "inf",
            "-inf",
            "true",
            "null",
            "''",
            "[]",
            "{}",
            "[1,2]",
            "{a: 1}",
            "???",
            "${nothing}",
            "${data}",
            "${oc.env:NO_SUCH_VARIABLE}",
            "${",
            "}",
            "a b",
            "'",
            "99999999999999999999999",
            "1/0",
            "3/2",
            "-1/2",
            "1/2/3",
            "a/b",
            "..",
            ".",
            "/",
            "~nobody/x",
            "/proc/nowhere",
            "/dev/null/x",
            "x" * 300,
            '"a\\x00b"',
            "1,2",
            "=",
            "\\",
            "None",
            "0x10",
            "1_0",
        ]
    ),
    st.integers(-(10**12), 10**12).map(str),
    st.floats(allow_subnormal=False).map(repr),
    st.text(st.characters(codec="utf-8", exclude_characters=""), max_size=12),
)


def outcome_of_override(place, override):
    """None if it is valid, else the one line that refuses it. Any other exception is the caller's failure."""
    out = place.folder / "overrides"
    try:
        cfg = compose([*place.overrides, f"save_dir={out}", "data.end_id=3", override])
        images = select_images(found := check(cfg))
        if found.folder.parent == out:  # not somewhere else on this machine
            with RunFolder.open(found, Rank()) as folder:
                folder.pending(images)
    except InputError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


def test_malformed_overrides_are_refused_in_one_line_and_touch_no_record(place):
    folder = place.run("kept", "data.end_id=2", f"save_dir={place.folder / 'overrides'}")
    before = {p: p.read_bytes() for p in folder.rglob("*.npz")}
    refused = set()

    @settings(ALWAYS_THE_SAME, max_examples=300)  # each one composes the config
    @example("data", "3")
    @example("", "3")
    @example("data", "[1,2]")
    @example("hydra/launcher", "3")
    @given(st.sampled_from(KEYS), VALUES)
    def throw(key, value):
        override = key if key.startswith("~") else f"{key}={value}"
        message = outcome_of_override(place, override)
        if message is not None:
            assert message.strip()
            refused.add(override)

    throw()
    assert {p: p.read_bytes() for p in before} == before
    assert len(refused) >= DISTINCT


# --- record files ------------------------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_subnormal=False),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([None]),
    st.just([[1.0]]),
    st.just({"psnr": 3}),
    st.just("7" * 50),
)


def paths_of(value, prefix=()):
    """Every place in a nested record."""
    yield prefix
    children = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths_of(child, (*prefix, key))


def with_junk(record, path, junk, remove):
    """A copy with one place replaced, or removed."""
    record = json.loads(json.dumps(record))
    if not path:
        return junk
    target = record
    for key in path[:-1]:
        target = target[key]
    if remove:
        del target[path[-1]]
    else:
        target[path[-1]] = junk
    return record


def packed(record, arrays):
    file = io.BytesIO()
    np.savez_compressed(file, record=np.frombuffer(json.dumps(record).encode(), np.uint8), **arrays)
    return file.getvalue()


@st.composite
def malformed(draw, content, record, arrays, paths):
    """The bytes of a record file that something has gone wrong with."""
    kind = draw(st.sampled_from(["truncated", "noise", "flipped", "junk", "junk", "junk", "removed", "arrays"]))
    if kind == "truncated":
        return content[: draw(st.integers(0, len(content) - 1))]
    if kind == "noise":
        return random.Random(draw(st.integers(0, 10**6))).randbytes(draw(st.integers(0, 3000)))
    if kind == "flipped":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, len(content) - 1))] ^= draw(st.integers(1, 255))
        return bytes(changed)
    if kind == "arrays":
        name = draw(st.sampled_from(sorted(arrays)))
        bad = draw(st.sampled_from([None, np.zeros(0), np.zeros((1, 2), "U3"), np.ones(2, bool), np.zeros((2, 2), int)]))
        return packed(record, {k: v for k, v in arrays.items() if k != name} | ({} if bad is None else {name: bad}))
    return packed(with_junk(record, draw(st.sampled_from(paths)), draw(JUNK), kind == "removed"), arrays)


def test_malformed_records_are_set_aside_and_the_others_stay_and_count(place):
    source = place.run("records", "data.end_id=3")
    good = {p.name: p.read_bytes() for p in (source / "records").iterdir()}
    record, arrays = read_record(source / "records" / "00001.npz")
    paths = [path for path in paths_of(record) if path]
    cfg = runs.config(place.all("records_thrown", "data.end_id=3"))
    images = select_images(check(cfg))
    thrown = RunFolder(place.path("records_thrown"), record["fingerprint"])
    refused = set()
    logging.getLogger("latentdaps").setLevel(logging.CRITICAL)

    @ALWAYS_THE_SAME
    @given(malformed(good["00001.npz"], record, arrays, paths))
    def throw(content):
        shutil.rmtree(thrown.path, ignore_errors=True)
        thrown.prepare()
        for name, fine in good.items():
            (thrown.path / "records" / name).write_bytes(content if name == "00001.npz" else fine)
        try:
            pending = [image.id for image in thrown.pending(images)]
        except InputError as error:  # a whole record of another configuration or another image
            assert "\n" not in str(error)
            refused.add(content)
            pending = None
        metrics = thrown.aggregate()
        left = {p.name: p.read_bytes() for p in (thrown.path / "records").iterdir()}
        assert content in left.values(), "whatever was there is still there"
        assert all(left[name] == good[name] for name in good if name != "00001.npz")
        counted = metrics["metadata"]["image_ids"]
        assert {0, 2} <= set(counted)
        if pending == [1]:
            refused.add(content)
            assert counted == [0, 2], "a damaged record does not count"
        json.dumps(metrics, allow_nan=False)

    throw()
    logging.getLogger("latentdaps").setLevel(logging.INFO)
    assert len(refused) >= DISTINCT
