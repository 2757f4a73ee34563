"""`temperature` names the likelihood in one place; where it is not used, all is as without it."""

import pytest

from utils.config.check import check
from utils.config.fingerprint import fingerprint, identity
from utils.errors import InputError

GROUPS = [("phase_retrieval", "demo_langevin"), ("phase_retrieval", "sd"), ("gaussian_blur", "ldm")]


@pytest.mark.parametrize("task, group", GROUPS)
@pytest.mark.parametrize("temperature", [1, 0.25, 4.0])
def test_the_likelihood_has_so_many_times_the_variance_of_the_noise(composed, task, group, temperature):
    settings = check(composed(f"task={task}", f"task_group={group}", f"temperature={temperature}"))
    chain, sigma = settings.chain, settings.group.operator.sigma
    assert chain.tau**2 / (2 * chain.likelihood_factor) == pytest.approx(temperature * sigma**2)


@pytest.mark.heavy
def test_it_changes_the_likelihood_alone(composed):
    plain, honest = (check(composed("sampler=fast", *more)).chain.model_dump() for more in ([], ["temperature=1"]))
    assert {key for key in plain if plain[key] != honest[key]} == {"tau", "likelihood_factor"}
    assert (honest["tau"], honest["likelihood_factor"]) == (0.05, 0.5)


def test_null_is_the_chain_of_the_group(composed):
    settings = check(composed())
    assert settings.temperature is None
    assert settings.chain == settings.group.mcmc_sampler_config


def test_records_from_before_the_switch_stay_valid(composed):
    nodes = check(composed()).composition.nodes
    before = {key: value for key, value in nodes.items() if key != "temperature"}
    assert before != nodes and "temperature" not in identity(nodes)
    assert fingerprint(nodes) == fingerprint(before)


@pytest.mark.heavy
def test_another_temperature_is_another_result(composed):
    prints = [check(composed(f"temperature={value}")).composition.fingerprint for value in ("null", "1", "1.0", "2")]
    assert prints[1] == prints[2] and len(set(prints)) == 3


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides, line",
    [
        (["temperature=1", "task.demo_langevin.operator.sigma=0"], "temperature=1.0: its square root times task.demo_langevin"),
        (["temperature=1e-17"], "temperature=1e-17: its square root times task.demo_langevin.operator.sigma=0.05"),
        (["temperature=0"], "temperature=0: input should be greater than 0"),
        (["temperature=-1"], "temperature=-1: input should be greater than 0"),
        (["temperature=warm"], "temperature=warm: "),
    ],
)
def test_what_gives_no_likelihood_is_refused_in_one_line(composed, overrides, line):
    with pytest.raises(InputError) as caught:
        check(composed(*overrides))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
