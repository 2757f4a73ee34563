"""What a portfolio's entries may hold, and when they are part of the fingerprint."""

import pytest
from omegaconf import OmegaConf

import posterior_sample
from utils.config.check import check
from utils.config.fingerprint import fingerprint
from utils.errors import InputError

LOW = "lowpass:0.3,lowpass_until:500"
CASES = [
    (("portfolio=[{lr:0}]",), "portfolio[0].lr=0: input should be greater than 0"),
    (("portfolio=[{},{tau:-1.0}]",), "portfolio[1].tau=-1.0: input should be greater than 0"),
    (("portfolio=[{spacing:fast}]",), "portfolio[0].spacing=fast: input should be a valid number"),
    (("portfolio=[{lr:.nan}]",), "portfolio[0].lr="),
    (("portfolio=[{lowpass:1.0,lowpass_until:5}]",), "portfolio[0].lowpass=1.0: input should be less than 1"),
    (("portfolio=[{lowpass:0.3,lowpass_until:1000}]",), "portfolio[0].lowpass_until=1000: input should be less than 1000"),
    (("portfolio=[{taus:2.0}]",), "portfolio[0].taus=2.0: there is no such key; an entry has lr, tau"),
    (("portfolio=[2.0]",), "portfolio[0]=2.0: input should be a valid dictionary"),
    (("portfolio=null",), "portfolio=None: input should be a valid list"),
    (("portfolio=[{lowpass:0.3}]",), "portfolio[0].lowpass=0.3: give lowpass_until too"),
    (("portfolio=[{},{lowpass_until:300}]",), "portfolio[1].lowpass_until=300: give lowpass too"),
    (
        ("portfolio=[{lowpass:0.3,lowpass_until:300}]",),
        "portfolio[0].lowpass_until=300: the last of 3 annealing steps is at t = 333",
    ),
    (
        (f"portfolio=[{{{LOW}}}]", "task=gaussian_blur"),
        "portfolio[0].lowpass=0.3: the measurement of operators.blur.GaussianBlur",
    ),
    (
        ("portfolio=[{},{spacing:3.0}]", "pruning_step=700", "children=2", "tree.branch_sigma=5.0"),
        "tree.branch_sigma=5.0: must lie between 8.8",  # 2.9 without the portfolio
    ),
    (("portfolio=[{tau:1e-8}]",), "portfolio[0].tau=1e-08: times tau="),
    (("portfolio=[{},{},{},{},{lr:2.0}]",), "portfolio: has 5 entries, of which the last 1 would belong to no particle"),
    (("portfolio=[{},{},{lr:2.0}]", "num_samples=2"), "(numbers 0 to 1); leave them out, or raise num_samples=2"),
]


@pytest.mark.parametrize("overrides, message", CASES, ids=[overrides[0] for overrides, _ in CASES])
def test_a_wrong_entry_is_one_line_that_names_it(composed, tiny, tmp_path, overrides, message):
    with pytest.raises(InputError) as caught:
        posterior_sample.run(composed(*tiny, *overrides))
    line = str(caught.value)
    assert message in line and "\n" not in line
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ("num_samples=1", "first_particle=3"),
        ("num_samples=1",),
        ("num_samples=2", "first_particle=2"),
        ("num_samples=2", "pruning_step=700", "pruning_keep=1", "children=2"),
    ],
    ids=["the last alone", "the first alone", "the second half", "children take the rest"],
)
def test_part_of_a_batch_may_have_the_batchs_portfolio(composed, tiny, overrides):
    check(composed(*tiny, "portfolio=[{},{lr:2.0},{},{tau:2.0}]", *overrides))


def of(composed, value):
    return fingerprint(OmegaConf.to_container(composed(f"portfolio={value}"), resolve=True))


def test_a_portfolio_is_part_of_the_fingerprint_where_it_changes_results(composed):
    nodes = OmegaConf.to_container(composed(), resolve=True)
    older = {key: value for key, value in nodes.items() if key != "portfolio"}
    assert fingerprint(nodes) == fingerprint(older) == of(composed, "[{}]") == of(composed, "[{},{lr:1.0}]")
    found = [of(composed, v) for v in ("[]", "[{lr:2.0}]", "[{tau:2.0}]", "[{},{lr:2.0}]", "[{lr:2.0},{}]", f"[{{{LOW}}}]")]
    assert len(set(found)) == len(found)
    assert of(composed, "[{lr:2}]") == of(composed, "[{lr:2.0}]") == of(composed, "[{lr:2.0,tau:1.0}]")
