"""The check of the chain at the start of a run: one warning with both numbers, or none, and nothing of the run changes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.worlds import runs
from utils.config.check import check
from utils.data import select_images
from utils.diagnosis.chain_check import check_chain, complaints
from utils.diagnosis.stability import Pace
from utils.records.files import read_record
from utils.running.build import build

ON = "chain_check=auto"


@pytest.fixture
def checked(composed, tiny, caplog):
    """checked(*overrides) -> (messages, network calls of the sampler, what was built) of the check alone."""

    def start(*overrides):
        settings = check(composed(*tiny, runs.ANALYTIC, *runs.LINEAR, ON, *overrides))
        parts = build(settings)
        caplog.clear()
        with caplog.at_level("INFO", logger="latentdaps"):
            check_chain(parts, settings, select_images(settings)[0])
        return caplog.records, parts.sampler.counted.calls, parts

    return start


def warnings(records):
    return [record.getMessage() for record in records if record.levelname == "WARNING"]


@pytest.fixture(scope="module")
def curvature():
    """Of the first step's negative log density, in closed form; 7 products find it within 1 % in 8 dimensions."""
    decoder = runs.load_analytic(None, torch.device("cpu"), None).decoder.numpy()
    return 2 * np.linalg.eigvalsh(decoder.T @ decoder)[-1] + 1 / 10**2


@pytest.mark.heavy
@pytest.mark.parametrize("algorithm, momentum, limit", [("langevin", 0.0, 2.0), ("hmc", 0.5, 3.0)])
def test_a_rate_above_the_limit_is_one_warning_with_both_numbers(checked, curvature, algorithm, momentum, limit):
    chain = dict(mc_algo=algorithm, momentum=momentum)
    (message,) = warnings(checked(*runs.set_chain(lr=1.05 * limit / curvature, **chain))[0])
    assert f"above the stability limit {limit:.3g}" in message and f"curvature {curvature:.2g}"[:11] in message
    product = float(message.split(" = ")[1].split()[0])
    assert product == pytest.approx(1.05 * limit, rel=0.02)
    assert warnings(checked(*runs.set_chain(lr=0.95 * limit / curvature, **chain))[0]) == []


@pytest.mark.heavy
def test_the_last_step_has_its_own_curvature(checked, curvature):
    """Where sigma is small the Gaussian adds its own: here a rate that does not decay is too large only there."""
    sigmas = ("sampler.annealing_scheduler_config.sigma_min=0.01", *runs.set_chain(lr_min_ratio=1.0, lr=1.8 / curvature))
    (message,) = warnings(checked(*sigmas)[0])
    assert "at the last step" in message and "at the first step" not in message


@pytest.mark.heavy
def test_a_chain_that_cannot_move_is_one_warning_with_its_drift(checked, curvature):
    (message,) = warnings(checked(*runs.set_chain(lr=0.04 / curvature, lr_min_ratio=1.0, num_steps=2))[0])
    assert "hardly moves: all 2 iterations drift by 0.08" in message and "above" not in message
    assert warnings(checked(*runs.set_chain(lr=0.06 / curvature, lr_min_ratio=1.0, num_steps=2))[0]) == []


@pytest.mark.heavy
def test_both_faults_are_one_warning(checked, curvature):
    falling = runs.set_chain(lr=2.1 / curvature, lr_min_ratio=0.0, num_steps=1)
    (message,) = warnings(checked(*falling, "sampler.annealing_scheduler_config.num_steps=99")[0])
    assert "above the stability limit" in message and "hardly moves" in message


def test_switched_off_it_says_and_computes_nothing(checked, curvature, monkeypatch):
    monkeypatch.setattr("utils.diagnosis.chain_check.residual_curvature", lambda *_: pytest.fail("computed"))
    assert checked(*runs.set_chain(lr=100.0 / curvature), "chain_check=false")[0] == []


def test_what_it_spends_is_said_and_not_counted_as_the_samplers(checked):
    records, calls, parts = checked()
    assert "8 decoder passes, 2 of the denoiser" in records[0].getMessage()
    assert not calls and parts.sampler.prior._prior is parts.sampler.counted  # its wrappers are untouched


@pytest.mark.heavy
def test_auto_leaves_it_out_where_graphs_are_compiled(checked, monkeypatch):
    monkeypatch.setattr("utils.device.compiles_each_graph", lambda device: True)
    assert checked()[0] == []
    assert checked("chain_check=true")[0] != []


@pytest.mark.parametrize(
    "text, reason",
    [
        ("derivative for aten::own_backward\n is not implemented", "derivative for aten::own_backward is not implemented"),
        (
            "element 0 of tensors does not require grad and does not have a grad_fn",
            "the loss has no second derivative, by which the rate is judged",
        ),
    ],
)
def test_a_part_without_a_second_derivative_does_not_end_the_run(checked, monkeypatch, text, reason):
    def refuse(*_):
        raise RuntimeError(text)

    monkeypatch.setattr("utils.diagnosis.chain_check.curvature_products", refuse)
    (record,) = checked()[0]
    assert record.getMessage() == f"chain_check: left out ({reason})"


@pytest.mark.program
@pytest.mark.parametrize(
    "speed", [(), ("gradient_checkpointing=true",), ("precision=bf16",)], ids=["plain", "checkpoint", "bf16"]
)
def test_records_are_the_same_with_and_without(run, speed):
    folder, with_it = run(*speed, ON, "name=on")
    other, without = run(*speed, "chain_check=false", "name=off")
    log = (folder / "run.log").read_text()
    assert "chain_check: first step" in log and "chain_check" not in (other / "run.log").read_text()
    assert runs.scores(with_it) == runs.scores(without)
    (one, arrays), (two, others) = (read_record(f / "records/00000.npz") for f in (folder, other))
    assert one["fingerprint"] == two["fingerprint"]
    assert arrays.keys() == others.keys() and all(np.array_equal(arrays[k], others[k]) for k in arrays)


@pytest.mark.heavy
def test_a_decoder_with_attention_and_a_codebook(tmp_path, composed, tiny, caplog):
    """The layout of the public checkpoints: fused attention and the straight-through codebook have what it needs."""
    from tests.worlds.tiny import vq_pipeline

    vq_pipeline().save_pretrained(tmp_path / "vq")
    overrides = (f"model.path={tmp_path / 'vq'}", "model.resolution=32", "data.resolution=32", ON)
    settings = check(composed(*tiny, *overrides))
    with caplog.at_level("INFO", logger="latentdaps"):
        check_chain(build(settings), settings, select_images(settings)[0])
    assert "chain_check: first step" in caplog.text


def test_the_advised_rate_is_stable_at_both_ends():
    """The first step wants 2 / 4 of its rate, the last one, of a tenth of the rate, 2 / 3 of that: half of the config's."""
    ends = {"first step": Pace(1e-3, 4e3, 2.0, 1.0), "last step": Pace(1e-4, 3e4, 2.0, 1.0)}
    settings = SimpleNamespace(task_group="demo", chain=SimpleNamespace(lr=1e-3, num_steps=10), pixel=1.0)
    (line,) = complaints(ends, settings)
    assert line.endswith("below 0.0005 it is stable")
