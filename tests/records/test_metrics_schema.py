"""metrics.json and its schema agree, and a damaged or older file is refused with one line."""

import copy
import json

import pytest

from tests.worlds.synthetic import write_run
from utils.analysis import runs
from utils.errors import InputError
from utils.records.metrics import Block, check_metrics


def unknown_keys(block, prefix=""):
    """Keys that the file has and the schema does not name; metadata, device and gpu may hold more."""
    found = [f"{prefix}{key}" for key in block.model_extra or ()]
    for name, value in block:
        if isinstance(value, Block) and name != "metadata":
            found += unknown_keys(value, f"{prefix}{name}.")
    return found


ALLOWED = {"pruning.parents", "optimization.calls_without_iteration"}


@pytest.mark.program
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("num_samples=1",),
        ("repulsion_scale=0.3", "pruning_step=700", "optimization_step=400", "optimization.max_iterations=1"),
    ],
)
def test_a_real_run_fits_the_schema(run, overrides):
    folder, content = run("data.end_id=1", *overrides)
    metrics = check_metrics(content, "run")
    assert set(unknown_keys(metrics)) <= ALLOWED
    again = runs.load(folder / "metrics.json", from_records=True)
    assert again.metrics.model_dump(exclude={"time": {"compile_s"}}) == metrics.model_dump(exclude={"time": {"compile_s"}})


@pytest.fixture(scope="module")
def content(tmp_path_factory, composed):
    folder = write_run(tmp_path_factory.mktemp("runs"), composed, [["0", "180"], ["failed", "0"]])
    return json.loads((folder / "metrics.json").read_text())


def test_an_unchanged_file_passes(content):
    assert check_metrics(content, "x").metadata.num_images == 2


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("schema",), None, "it has no schema number"),
        (("schema",), 0, "schema 0, this program reads 1"),
        (("psnr", "sample"), None, "psnr.sample: input should be a valid list"),
        (("psnr", "sample"), [[1.0, 2.0]], "psnr.sample has 1 entries for 2 images"),
        (("modes", "label"), [["0"], ["0"]], "modes.label has 1 entries for 2 particles"),
        (("modes", "label"), [["0", "90"], ["0", "0"]], "modes.label.0.1: input should be '0', '180', 'mixed' or 'failed'"),
        (("metadata", "seed"), "42", "metadata.seed"),
        (("metadata", "image_ids"), [0], "metadata.image_ids has 1"),
        (("time", "total_s"), float("nan"), "time.total_s"),
        (("vram",), {}, "vram has  for the phases sampling"),
        (("time", "phases", "sampling", "steps"), 1.5, "time.phases.sampling.steps"),
        (("diverged",), [[False, False]], "diverged has 1 entries"),
        (("loss", "sample"), [[1.0], [1.0]], "loss.sample has 1 entries for 2 particles"),
        (("loss", "ratio"), [[1.0, 1.0]], "loss.ratio has 1 entries for 2 images"),
        (("loss", "noise_floor"), [1.0], "loss.noise_floor has 1 entries for 2 images"),
        (("metadata", "image_ids"), [0, 0], "metadata.image_ids names an image twice"),
        (("selection", "picked"), [0, 2], "selection.picked is 2 for 2 particles"),
        (("selection", "picked"), [-1, 0], "selection.picked is -1 for 2 particles"),
        (("time", "per_step_s"), [[0.1], [0.1, 0.1]], "time.per_step_s has not the same number of steps"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(content, path, value, message):
    damaged = copy.deepcopy(content)
    place = damaged
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError) as caught:
        check_metrics(damaged, "folder/metrics.json")
    assert message in str(caught.value) and "\n" not in str(caught.value) and "folder/metrics.json" in str(caught.value)


@pytest.mark.parametrize("block", ["psnr", "modes", "selection", "diversity", "time", "vram", "cost", "pruning", "diverged"])
def test_a_missing_block_is_refused(content, block):
    with pytest.raises(InputError, match=block):
        check_metrics({key: value for key, value in content.items() if key != block}, "x")


def test_keys_of_a_later_program_do_no_harm(content):
    later = copy.deepcopy(content)
    later["metadata"]["shards"], later["new"] = 2, {"a": 1}
    assert check_metrics(later, "x").metadata.name == "exp0"
