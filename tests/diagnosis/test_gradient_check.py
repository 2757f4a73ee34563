"""The gradient of a run is checked stage by stage: what is shipped flows, and each fault of a part is found."""

import pytest
import torch

from tests.worlds import broken, cut, plugins, runs
from utils.config.check import check
from utils.diagnosis.gradient_check import NOT_ASKED, Stage, check_gradients, examined
from utils.errors import InputError
from utils.paths import PROJECT
from utils.priors.latent_diffusion import load_pipeline
from utils.running.build import build
from utils.sampling.mechanism import Mechanism

X = torch.linspace(-0.9, 0.9, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
ABSENT = {"deepinv", "nonlinear_blur"}  # a package and weights of others; tests/operators has their gradients
TASKS = sorted({path.stem for path in (PROJECT / "configs/task").glob("*.yaml")} - ABSENT)


@pytest.fixture
def rows(composed, tiny):
    """rows(*overrides) -> {stage: row}, on the tiny prior."""

    def start(*overrides):
        settings = check(composed(*tiny, *overrides))
        return {row.stage: row for row in check_gradients(build(settings, tried=False), settings)}

    return start


def own_operator(name):
    return f"task.demo_langevin.operator._target_=tests.worlds.cut.{name}", "~task.demo_langevin.operator.oversample"


@pytest.mark.heavy
@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_operators_flow(composed, task):
    settings = check(composed(f"task={task}"))
    stages = check_gradients(build(settings), settings)
    for name in ("loss", "operator"):
        row = next(stages)
        assert (row.stage, row.gradient, row.findings, row.notes) == (name, "flows", (), ())
        assert row.slope < 1e-5 and row.other == 0 and row.alone < 1e-5


@pytest.mark.heavy
@pytest.mark.parametrize("model", ["demo-faces", "demo-scenes", "natural-32"])
def test_the_shipped_priors_flow(composed, model):
    settings = check(composed(f"model={model}", *(["data.resolution=32"] if model == "natural-32" else [])))
    found = {row.stage: row for row in check_gradients(build(settings), settings)}
    assert {row.findings for row in found.values()} == {()}
    assert found["decoder"].gradient == found["all: loss of the latent"].gradient == "flows"
    assert found["decoder"].slope < 1e-2 and found["all: loss of the latent"].slope < 1e-2
    assert found["denoiser"].gradient == NOT_ASKED and found["denoiser"].alone < 1e-4


@pytest.mark.heavy
def test_the_shipped_mechanisms_flow(rows):
    switches = ["repulsion_scale=0.15", "recombination_step=900", "pruning_step=700", "optimization_step=400"]
    found = rows(*switches)
    assert {row.findings for row in found.values()} == {()}
    assert found["similarity"].gradient == found["repulsion.guide"].gradient == "flows"
    assert found["optimization.after_chain"].gradient == "flows"
    assert found["pruning.after_chain"].gradient == found["recombination.after_chain"].gradient == "none taken"
    assert found["pruning.after_chain"].goes_in.startswith("(4, ") and found["pruning.after_chain"].comes_out.startswith("(2, ")


@pytest.mark.heavy
@pytest.mark.parametrize("similarity", ["latent", "rotation"])
def test_a_repulsion_within_the_chain_flows(rows, similarity):
    found = rows(
        "repulsion_scale=0.15", "repulsion.place=chain", f"repulsion.similarity={similarity}", "repulsion.bandwidth=median"
    )
    assert found["repulsion.bend"].gradient == "flows" and found["repulsion.guide"].gradient == "none taken"


@pytest.mark.heavy
def test_a_row_says_what_goes_in_and_out(rows):
    row = rows()["operator"]
    assert (row.goes_in, row.comes_out) == ("(2, 3, 16, 16) float32 cpu", "(2, 3, 24, 24) float32 cpu")
    assert row.part == "PhaseRetrieval"


@pytest.mark.heavy
def test_one_cut_hides_no_other_stage(rows):
    found = rows(*own_operator("Detach"))
    assert found["operator"].gradient == found["loss"].gradient == "cut"
    assert found["operator"].findings == found["loss"].findings == (f".detach() at {cut.line_of('Detach')}",)
    assert found["decoder"].gradient == "flows"


@pytest.mark.heavy
def test_what_is_rounded_to_whole_numbers_is_still_shown(rows):
    found = rows(*own_operator("IntegerCast"))
    assert found["operator"].gradient == "cut" and "to() to int32" in found["operator"].findings[0]


@pytest.mark.heavy
def test_an_operator_that_cannot_measure_has_no_loss(rows, monkeypatch):
    monkeypatch.setattr(cut.Detach, "forward", lambda self, x: x > 0)
    found = rows(*own_operator("Detach"), "repulsion_scale=0.1")
    assert "loss" not in found and found["operator"].gradient == "cut" and "repulsion.guide" not in found


@pytest.mark.parametrize("name, fault", [("Dropping", "gives (3, 16, 16)"), ("Complex", "gives complex numbers")])
def test_a_wrong_shape_or_kind_is_told(name, fault):
    row = stage(getattr(broken, name)(0.05))
    assert row.findings[0].startswith(fault)


def stage(part, x=X):
    return examined(Stage("operator", "test", part, x), "fp32")


def test_a_way_that_is_lost_beside_one_that_flows_differs_from_finite_differences():
    row = stage(cut.HalfCut(0.05))
    assert row.gradient == "flows" and row.slope > 0.1
    assert "differs from finite differences" in row.findings[0] and cut.line_of("HalfCut") in row.findings[0]


def test_a_wrong_backward_differs_from_finite_differences():
    row = stage(cut.WrongBackward(0.05))
    assert row.gradient == "flows" and "differs from finite differences" in row.findings[0]


def test_particles_that_mix_are_found():
    row = stage(cut.Mixing(0.05))
    assert row.other > 0.01 and "keep the first axis apart" in row.findings[0]


def test_a_batch_that_differs_from_its_singles_is_found():
    row = stage(lambda x: x * len(x))
    assert row.other == 0 and row.alone == pytest.approx(1) and "same two alone by 1" in row.findings[0]


def test_noise_of_finite_differences_is_no_fault():
    row = stage(lambda x: 1000 + 1e-4 * x)  # float32 has steps of 6e-5 there
    assert row.gradient == "flows" and row.findings == () and "depend on their step" in row.notes[0]


@pytest.mark.heavy
def test_the_codebook_of_a_published_prior_is_a_note(tmp_path):
    from tests.worlds.tiny import vq_pipeline

    vq_pipeline().save_pretrained(tmp_path / "vq")
    prior = load_pipeline(tmp_path / "vq", torch.device("cpu"))
    prior.scaling_factor = 0.18215  # so far from the tiny codebook that no finite difference crosses to another entry
    z = torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    row = stage(prior.decode, z)
    assert row.gradient == "flows" and row.findings == ()
    assert "argmin() to int64" in row.notes[0] and "diffusers/models/autoencoders/vae.py" in row.notes[0]


class CutGuide(Mechanism):
    """Wants the gradient of a latent that it has detached."""

    def __init__(self, clock):
        pass

    def acts(self, step):
        return step == 1

    def guide(self, z0hat, particles, s, sampler):
        with torch.enable_grad():
            z = z0hat.detach().requires_grad_()
            size = z.detach().square().sum()  # lost here
            (gradient,) = torch.autograd.grad(size, z)
        return z0hat - gradient


class Spoiling(CutGuide):
    def guide(self, z0hat, particles, s, sampler):
        return z0hat / 0


@pytest.mark.heavy
def test_a_mechanism_whose_gradient_is_cut_is_found_with_its_line(rows):
    found = rows("+mechanisms.mine._target_=tests.diagnosis.test_gradient_check.CutGuide")
    row = found["mine.guide"]
    assert row.gradient == "cut" and row.findings[0].startswith(".detach() at tests/diagnosis/test_gradient_check.py:")
    assert row.findings[0].endswith("size = z.detach().square().sum()")


@pytest.mark.heavy
def test_a_mechanism_that_returns_non_finite_numbers_is_found(rows):
    row = rows("+mechanisms.mine._target_=tests.diagnosis.test_gradient_check.Spoiling")["mine.guide"]
    assert row.gradient == "non-finite"


@pytest.mark.heavy
def test_what_is_no_operator_is_wrong_input(rows):
    with pytest.raises(InputError, match="is no operators.base.Operator"):
        rows("task.demo_langevin.operator._target_=tests.worlds.broken.NoOperator", "~task.demo_langevin.operator.oversample")
    with pytest.raises(InputError, match="has no attribute"):
        rows("model._target_=tests.worlds.broken.shapeless")


@pytest.mark.heavy
def test_an_analytic_prior_in_float64_flows(rows):
    found = rows(runs.ANALYTIC)
    assert {row.findings for row in found.values()} == {()} and found["decoder"].goes_in.endswith("float64 cpu")


FIDELITY = {
    "poisson": ["fidelity.gaussian=0", "fidelity.poisson=1", "fidelity.photons=1000"],
    "amplitude": ["fidelity.gaussian=0", "fidelity.amplitude=1", "fidelity.photons=1000"],
    "free_scale": ["fidelity.free_scale=true"],
    "silog": plugins.experiment("silog"),
    "ssi": plugins.experiment("ssi"),
    "multiscale_gradient": ["task=gaussian_blur", *plugins.experiment("multiscale_gradient")],
}


@pytest.mark.heavy
@pytest.mark.parametrize("term", FIDELITY)
def test_the_shipped_terms_of_the_loss_flow(rows, term):
    found = rows(*FIDELITY[term])
    assert {row.findings for row in found.values()} == {()}
    assert found["loss"].part == "WithFidelity.loss" and found["loss"].gradient == "flows"
    fixed = term in ("ssi", "free_scale")  # a scale that counts as a constant
    assert bool(found["loss"].notes) == fixed and (fixed or found["loss"].slope < 1e-2)
