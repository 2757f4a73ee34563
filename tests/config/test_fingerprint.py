"""Which settings decide results: these are in the fingerprint of the records, and no others."""

import copy

import pytest
from omegaconf import OmegaConf

from utils.config.fingerprint import differences, fingerprint, identity


@pytest.fixture(scope="module")
def plain(composed):
    """A resolved config with every part off."""
    return OmegaConf.to_container(composed(), resolve=True)


def changed(nodes, **values):
    """The config with other values; two underscores stand for a dot."""
    other = copy.deepcopy(nodes)
    for key, value in values.items():
        *path, last = key.split("__")
        node = other
        for name in path:
            node = node[name]
        assert node[last] != value
        node[last] = value
    return other


@pytest.mark.parametrize(
    "values",
    [
        dict(gpu=3),
        dict(num_cores=8),
        dict(shard="1/2"),
        dict(batch_images=7),
        dict(max_particles_per_pass=2),
        dict(compile=True),
        dict(gradient_checkpointing=True),
        dict(save_dir="elsewhere", name="other"),
        dict(resume=False),
        dict(data__start_id=3, data__end_id=5, data__source="elsewhere", model__source="elsewhere"),
        dict(task__ldm__mcmc_sampler_config__lr=1.0),  # of another group
        dict(repulsion__decay="cosine"),
        dict(pruning__fill="clone", pruning_keep=1),
        dict(optimization__lr=1.0),
        dict(optimization__parametrization="residual"),
        dict(recombination__every=7),
        dict(tree__branch_sigma=3.0),
        dict(repulsion_scale=0.5, num_samples=1, repulsion__decay="cosine"),
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_changes_no_result_leaves_it(plain, values):
    one_particle = {"num_samples": 1, "repulsion_scale": 0.5} if "repulsion_scale" in values else {}
    other = {k: v for k, v in values.items() if k not in one_particle}
    base = changed(plain, **one_particle)
    assert fingerprint(changed(base, **other)) == fingerprint(base)


def test_a_config_from_before_the_last_denoising_is_one_without(plain):
    before = copy.deepcopy(plain)
    assert before["sampler"]["diffusion_scheduler_config"].pop("final_sigma") == 0
    assert fingerprint(before) == fingerprint(plain)


ON = dict(repulsion_scale=0.5, pruning_step=300, optimization_step=200, recombination_step=500, children=2)


@pytest.mark.parametrize(
    "values",
    [
        dict(seed=7),
        dict(num_samples=2),
        dict(precision="bf16"),
        dict(sampler__diffusion_scheduler_config__final_sigma=0.15),
        dict(data__root="elsewhere"),
        dict(model__path="elsewhere"),
        dict(success__threshold_db=21.0),
        dict(task__demo_langevin__mcmc_sampler_config__lr=1.0),
        dict(repulsion_scale=0.25),
        dict(repulsion__decay="cosine"),
        dict(pruning_step=400),
        dict(pruning__fill="clone"),
        dict(pruning_keep=1),
        dict(children=3),
        dict(coupling_scale=0.5),
        dict(tree__branch_sigma=3.0),
        dict(optimization_step=100),
        dict(optimization__lr=1.0),
        dict(optimization__parametrization="residual"),
        dict(recombination_step=400),
        dict(recombination__every=7),
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_changes_results_changes_it(plain, values):
    """Details of parts where these are on."""
    base = changed(plain, **ON)
    assert fingerprint(changed(base, **values)) != fingerprint(base)


def test_a_key_that_is_gone_counts_where_it_did_something(plain):
    """With whole numbers where a key takes others, so that old configs are read as today's are."""
    on = changed(plain, **{**ON, "repulsion_scale": 1, "recombination__excess": 2})
    without, guessing = ({**on, "recombination": {**on["recombination"], "rescue": value}} for value in ("none", "borrow"))
    assert fingerprint(without) == fingerprint(on) and identity(without) == identity(on)
    assert fingerprint(guessing) != fingerprint(on)
    assert differences(identity(guessing), identity(on)) == ["recombination.rescue is borrow there and the default here"]
    assert without["recombination"]["rescue"] == "none"  # the caller's stays as it is


@pytest.mark.parametrize("part", ON)
def test_switching_a_part_on_changes_it(plain, part):
    assert fingerprint(changed(plain, **{part: ON[part]})) != fingerprint(plain)


def test_the_residuals_keys_count_where_it_is_chosen(plain):
    """Records of a free optimisation from before there was another stay valid."""
    free = changed(plain, **ON)
    before = copy.deepcopy(free)
    for key in ("parametrization", "bound", "warmup"):
        del before["optimization"][key]
    other = dict(optimization__bound=0.1, optimization__warmup=3)
    assert fingerprint(changed(free, **other)) == fingerprint(free) == fingerprint(before)
    residual = changed(free, optimization__parametrization="residual")
    assert len({fingerprint(changed(residual, **{key: value})) for key, value in other.items()} | {fingerprint(residual)}) == 3


@pytest.fixture(scope="module")
def measured(composed):
    """A resolved config of measurements, every key of their convention at its default."""
    return OmegaConf.to_container(composed("data=measurement", "data.root=somewhere"), resolve=True)


def test_keys_of_a_convention_at_their_defaults_leave_configs_of_before_as_they_were(measured):
    before = copy.deepcopy(measured)
    before["data"] = {key: measured["data"][key] for key in ("root", "kind", "resolution", "start_id", "end_id", "source")}
    assert fingerprint(before) == fingerprint(measured)
    assert set(identity(measured)["data"]) == {"root", "kind", "resolution"}


@pytest.mark.parametrize(
    "values",
    [
        dict(data__quantity="intensity"),
        dict(data__quantity="counts", data__gain=3.0),
        dict(data__center="corner"),
        dict(data__norm="none"),
        dict(data__channels=1),
        dict(data__mask=[0, -1]),
        dict(data__mask="mask.npy"),
        dict(data__mask_dataset="mask"),
        dict(data__dataset="other"),
        dict(data__scale="free"),
    ],
    ids=lambda values: next(iter(values)),
)
def test_another_convention_changes_it(measured, values):
    assert fingerprint(changed(measured, **values)) != fingerprint(measured)


def test_a_mask_of_nan_equals_itself(measured):
    both = [changed(measured, data__mask=[float("nan"), 0]) for _ in range(2)]
    assert differences(*map(identity, both)) == []
    assert fingerprint(both[0]) == fingerprint(changed(measured, data__mask=["nan", 0]))
    assert fingerprint(changed(measured, data__gain=2)) == fingerprint(changed(measured, data__gain=2.0))


def test_differences_are_named_by_their_place():
    old, new = {"a": 1, "b": {"c": 2, "d": 3}, "gone": 4}, {"a": 1, "b": {"c": 5, "d": 3}, "new": 6}
    assert differences(old, new) == [
        "b.c is 2 there and 5 here",
        "gone is 4 there and the default here",
        "new is the default there and 6 here",
    ]
