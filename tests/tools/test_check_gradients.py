"""tools/check_gradients.py: exit status 0 where the gradient flows, 1 with the line where it is cut, 2 for wrong input."""

import sys

import pytest

from tests.worlds import cut
from tools import check_gradients

TARGET = "task.demo_langevin.operator._target_"


@pytest.fixture
def checked(tiny, monkeypatch, capsys):
    """checked(*overrides) -> (exit status, output, error output)."""

    def start(*overrides):
        monkeypatch.setattr(sys, "argv", ["check_gradients.py", *tiny, *overrides])
        with pytest.raises(SystemExit) as stop:
            check_gradients.main()
        return stop.value.code, *capsys.readouterr()

    return start


@pytest.mark.heavy
def test_what_is_shipped_ends_with_0_and_a_table(checked):
    status, out, _ = checked("repulsion_scale=0.1")
    assert status == 0
    for stage in ("loss", "operator", "decoder", "all: loss of the latent", "denoiser", "similarity", "repulsion.guide"):
        (line,) = [line for line in out.splitlines() if line.startswith(f"│ {stage} (")]
        assert "float32 cpu" in line and ("flows" in line or "not asked for" in line)
    assert "cut:" not in out


@pytest.mark.heavy
def test_a_cut_ends_with_1_and_names_its_line(checked):
    status, out, _ = checked(
        "task.demo_langevin.operator._target_=tests.worlds.cut.Round", "~task.demo_langevin.operator.oversample"
    )
    assert status == 1
    assert f"zero: operator (Round): round() has no or a zero gradient at {cut.line_of('Round')}" in out.splitlines()


@pytest.mark.heavy
@pytest.mark.parametrize(
    "override, line",
    [
        ("num_samples=0", "num_samples=0"),
        ("model.path=nowhere", "model.path=nowhere"),
        (f"{TARGET}=tests.worlds.broken.NoOperator", "cannot be built"),
    ],
)
def test_wrong_input_ends_with_2_in_one_line(checked, override, line):
    status, _, error = checked(override)
    assert status == 2 and line in error and error.startswith("error: ") and error.count("\n") == 1
