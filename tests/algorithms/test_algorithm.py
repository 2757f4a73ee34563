"""An algorithm of thirty lines that the config alone switches on: through program, records, resuming, rounds and tables."""

import pytest
import torch

from tests.worlds import runs as tiny_runs
from tests.worlds.descent import Descent
from utils.analysis import runs
from utils.analysis.comparison import compare
from utils.analysis.experiments import gather
from utils.analysis.tables import build
from utils.config.check import check
from utils.config.fingerprint import fingerprint
from utils.config.overrides import check_renamed
from utils.errors import InputError
from utils.records.files import read_record

YAML = """_target_: {target}
num_steps: {steps}
rate: 1.0e-4
"""


@pytest.fixture
def descent(tmp_path, composed, tiny, monkeypatch):
    """descent(*overrides, target, steps) -> (folder, metrics) of a tiny run with the algorithm of a config of its own."""
    import posterior_sample

    def start(*overrides, target="tests.worlds.descent.Descent", steps=4):
        group = tmp_path / "configs" / "sampler"
        group.mkdir(parents=True, exist_ok=True)
        (group / "descent.yaml").write_text(YAML.format(target=target, steps=steps))
        kept = [text for text in tiny if not text.startswith("sampler.")]
        searched = f"hydra.searchpath=[{tmp_path / 'configs'}]"
        with monkeypatch.context() as patch:
            tiny_runs.without_pictures(patch)
            cfg = composed(*kept, searched, "sampler=descent", *overrides)
            posterior_sample.run(cfg)
        folder = tmp_path / "results" / cfg.name
        return folder, tiny_runs.metrics_of(folder)

    return start


@pytest.mark.program
def test_it_runs_through_the_program_its_records_and_its_tables(descent):
    folder, metrics = descent()
    phases = metrics["time"]["phases"]
    assert list(phases) == ["sampling"] and phases["sampling"]["steps"] == 2 * 4
    assert phases["sampling"]["decoder_forward_backward"] == 4  # passes a particle
    record, arrays = read_record(folder / "records" / "00000.npz")
    assert record["trace"]["timestep"] == [1000, 750, 500, 250] and record["pruning"] is None
    losses = [[step[p] for step in record["trace"]["loss"]] for p in range(4)]
    assert all(row[-1] < row[0] for row in losses) and arrays["z"].shape[0] == 4
    [row] = compare(gather([runs.load(folder)]))
    assert row["cost"]["passes"] == 4 * 4 and build("cost", [row]).rows and build("quality", [row]).rows


@pytest.mark.program
def test_it_resumes_and_is_sharded_bit_for_bit(descent, tmp_path):
    whole, _ = descent("name=whole")
    descent("name=parts", "data.end_id=1")
    parts, metrics = descent("name=parts", "shard=1/2")
    assert metrics["metadata"]["image_ids"] == [0, 1]
    for name in ("00000.npz", "00001.npz"):
        one, other = (read_record(folder / "records" / name)[1]["z"] for folder in (whole, parts))
        assert (one == other).all()


@pytest.mark.program
def test_its_particles_are_started_in_rounds(descent):
    thresholds = "sequential.thresholds={deviation: -1e9, denoising: null, agreement: null}"
    _, metrics = descent("population=sequential", "sequential.start=1", "sequential.add=1", thresholds, "data.end_id=1")
    assert [len(part["particles"]) for part in metrics["population"]["rounds"][0]] == [1, 1, 1, 1]
    _, fixed = descent("name=fixed", "data.end_id=1")
    assert metrics["loss"]["sample"][0] == pytest.approx(fixed["loss"]["sample"][0], rel=1e-5)  # passes differ in size


@pytest.mark.heavy
def test_a_library_user_needs_no_profiler(network_prior):
    from operators.phase_retrieval import PhaseRetrieval
    from utils.noise import KeyedNoise
    from utils.sampling.particles import Particles

    operator = PhaseRetrieval()
    loop = Descent(3, 1e-4, prior=network_prior, operator=operator, noise=KeyedNoise(1))
    y = operator(torch.zeros(1, 3, 16, 16))
    particles = Particles.start(y, [0], 2, 0, network_prior.latent_shape, network_prior.dtype)
    assert loop.sample(particles).image.shape == (2, 3, 16, 16)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, message",
    [
        (("pruning_step=500",), "pruning_step=500: sampler._target_=tests.worlds.descent.Descent is another algorithm"),
        (("repulsion_scale=0.1",), "repulsion_scale=0.1: sampler._target_="),
        (("temperature=1",), "temperature=1.0: sampler._target_="),
        (("chain_check=true",), "chain_check=true: sampler._target_="),
        (("+mechanisms.mine._target_=a.B",), "mechanisms.mine: sampler._target_="),
    ],
)
def test_what_acts_within_the_annealing_is_refused_before_torch(descent, overrides, message):
    with pytest.raises(InputError) as caught:
        descent(*overrides)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "target, message",
    [
        ("tests.worlds.descent.Ascent", "cannot be imported"),
        ("tests.worlds.descent.NoAlgorithm", "is no utils.algorithms.contract.Algorithm; subclass it"),
        ("no_such_module.Class", "cannot be imported"),
    ],
)
def test_what_is_no_algorithm_ends_in_one_line(descent, target, message):
    with pytest.raises(InputError) as caught:
        descent(target=target)
    assert f"sampler._target_={target}: " in str(caught.value) and message in str(caught.value)


@pytest.mark.heavy
def test_a_wrong_argument_ends_in_one_line(descent):
    with pytest.raises(InputError, match="sampler._target_=tests.worlds.descent.Descent: cannot be built .*speed"):
        descent("+sampler.speed=3")


def test_its_keys_may_be_called_what_daps_calls_its_own():
    check_renamed(["sampler=descent", "sampler.num_steps=3"])
    for shipped in (["sampler.num_steps=3"], ["sampler=fast", "sampler.num_steps=3"]):
        with pytest.raises(InputError, match="write sampler.annealing_scheduler_config.num_steps=3"):
            check_renamed(shipped)


def test_its_arguments_are_part_of_what_a_run_is_and_the_default_is_unmarked(composed):
    plain = check(composed())
    nodes = plain.composition.nodes
    named = {**nodes, "sampler": {**nodes["sampler"], "_target_": "sampler.LatentDAPS"}}
    assert fingerprint(named) == fingerprint(nodes)
    descents = [{**nodes, "sampler": {"_target_": "a.B", "rate": rate}} for rate in (1.0, 2.0)]
    assert len({fingerprint(nodes), *map(fingerprint, descents)}) == 3
