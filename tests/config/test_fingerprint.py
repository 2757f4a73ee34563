"""Which settings decide results: these are in the fingerprint of the records, and no others."""

import copy

import pytest
import yaml
from omegaconf import OmegaConf

from utils.config.fingerprint import differences, fingerprint, identity, without_removed
from utils.paths import PROJECT
from utils.records.kept import read_records


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
        dict(workers=2, threads=3),
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
        dict(tree__branch_sigma=3.0),
        dict(optimization_step=100),
        dict(optimization__lr=1.0),
        dict(recombination_step=400),
        dict(fidelity__terms=dict(mine=dict(_target_="a.B", weight=1.0))),
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


def test_a_config_with_a_portfolio_of_none_is_one_without(plain):
    assert fingerprint({**plain, "portfolio": []}) == fingerprint(plain)
    assert "portfolio" not in identity({**plain, "portfolio": []})
    entries = {**plain, "portfolio": [{}, {"lr": 2.0}]}
    assert fingerprint(entries) != fingerprint(plain)
    assert differences(identity(entries), identity(plain)) == ["portfolio is [{}, {'lr': 2.0}] there and the default here"]


def test_thresholds_without_an_early_stop_are_those_of_before(plain):
    thresholds = {"deviation": 3.0, "denoising": 0.6, "agreement": None}
    of = {**plain, "population": "sequential", "sequential": {**plain["sequential"], "thresholds": thresholds}}
    never, stops = copy.deepcopy(of), copy.deepcopy(of)
    never["sequential"]["thresholds"] |= {"stop_step": None, "stop_deviation": None}
    stops["sequential"]["thresholds"] |= {"stop_step": 300, "stop_deviation": 5.7}
    assert fingerprint(never) == fingerprint(of) and identity(never) == identity(of)
    assert fingerprint(stops) != fingerprint(of)
    assert never["sequential"]["thresholds"]["stop_step"] is None  # the caller's stays as it is


# path of a key that is gone, the value at which it did nothing, one at which it did something
GONE = [
    ("free_fraction", 0, 0.05),
    ("selection.rule", "loss", "free_loss"),
    ("step_clock", "progress", "noise"),
    ("recombination.choice", "prior", "correlation"),
]


def with_key(nodes, path, value):
    section, _, last = path.rpartition(".")
    return {**nodes, section: {**nodes.get(section, {}), last: value}} if section else {**nodes, last: value}


@pytest.mark.parametrize("path, without_effect, other", GONE)
def test_a_retired_key_counts_where_it_did_something(plain, path, without_effect, other):
    for base in (plain, changed(plain, **ON)):
        old = with_key(base, path, without_effect)
        assert fingerprint(old) == fingerprint(base) and identity(old) == identity(base)
    active = with_key(changed(plain, **ON), path, other)
    assert fingerprint(active) != fingerprint(changed(plain, **ON))
    assert [line.partition(" is ")[0] for line in differences(identity(active), identity(base))] == [
        path if path != "selection.rule" else "selection"
    ]


def test_what_stood_in_every_hash_still_does(plain):
    """Though nothing reads it any more; a part that is off is left out as before."""
    assert identity(plain)["step_clock"] == "progress" and "recombination" not in identity(plain)
    assert identity(changed(plain, **ON))["recombination"]["choice"] == "prior"


# Their repulsion_scale is the whole number 0, and their keys are too old to tell that it takes any number.
NOT_FROM_THEIR_CONFIG = {"repulsion_hard_faces/scale0", "repulsion_hard_scenes/scale0"}


@pytest.mark.heavy
def test_the_fingerprints_of_kept_runs_follow_from_their_configs():
    others = set()
    for path in sorted((PROJECT / "evidence").rglob("config.yaml")):
        record, _ = next(read_records(path.parent))
        if fingerprint(yaml.safe_load(path.read_text())) != record["fingerprint"]:
            others.add(path.parent.relative_to(PROJECT / "evidence").as_posix())
    assert others == NOT_FROM_THEIR_CONFIG


def test_a_config_of_the_coupling_counts_where_it_coupled(plain):
    on = changed(plain, **ON)
    off, coupled = ({**on, "coupling_scale": value} for value in (0.0, 0.5))
    assert fingerprint(off) == fingerprint(on) and identity(off) == identity(on)
    assert differences(identity(coupled), identity(on)) == ["coupling_scale is 0.5 there and the default here"]
    assert fingerprint(coupled) != fingerprint(on) and without_removed(coupled) == coupled


@pytest.mark.parametrize("part", ON)
def test_switching_a_part_on_changes_it(plain, part):
    assert fingerprint(changed(plain, **{part: ON[part]})) != fingerprint(plain)


def test_the_keys_of_a_residual_in_a_config_of_before(plain):
    """Where it was not chosen they said nothing; where it was they count."""
    on = changed(plain, **ON)
    free, free_too, residual, narrow = (
        {**on, "optimization": {**on["optimization"], "parametrization": chosen, "bound": bound, "warmup": 0}}
        for chosen, bound in (("free", 0.2), ("free", 0.1), ("residual", 0.2), ("residual", 0.1))
    )
    assert fingerprint(free) == fingerprint(free_too) == fingerprint(on) and identity(free) == identity(on)
    assert len({fingerprint(nodes) for nodes in (on, residual, narrow)}) == 3
    assert differences(identity(residual), identity(on))[1:] == [
        "optimization.parametrization is residual there and the default here",
        "optimization.warmup is 0 there and the default here",
    ]


GONE_TERMS = dict(silog=0, ssi=0.0, gradient=0.0)
COUNTS = dict(fidelity__gaussian=0, fidelity__poisson=1, fidelity__photons=100)  # whole numbers, as on the command line


def with_terms_of_before(nodes, **weights):
    """A config of before, in which they stood beside the others."""
    own = {key: value for key, value in nodes["fidelity"].items() if key != "terms"}
    return {**nodes, "fidelity": {**own, **GONE_TERMS, **weights}}


def test_terms_that_are_gone_in_a_config_of_before(plain):
    """At 0 they are not there; their zeros were hashed with every other data term, and still are."""
    counts = changed(plain, **COUNTS)
    for nodes in (plain, counts):
        assert fingerprint(with_terms_of_before(nodes)) == fingerprint(nodes)
        assert differences(identity(with_terms_of_before(nodes)), identity(nodes)) == []
    assert "fidelity" not in identity(plain) and {"silog", "ssi", "gradient"} < set(identity(counts)["fidelity"])
    active = with_terms_of_before(plain, silog=0.5)
    assert fingerprint(active) not in (fingerprint(plain), fingerprint(counts))
    assert "fidelity" in identity(active) and identity(active)["fidelity"]["silog"] == 0.5


def test_a_hash_of_before_is_that_of_today(plain):
    """What the program of before this change computed for experiment 0 and for counts, both over one place."""
    place = dict(data__root="images", model__path="prior")
    assert fingerprint(changed(plain, **place)) == "2d12945cd5f28e47"
    assert fingerprint(changed(plain, **place, **ON)) == "0ab9a4610ea62089"
    assert fingerprint(changed(plain, **place, **COUNTS)) == "ea10ecba13208caa"


@pytest.fixture(scope="module")
def measured(composed):
    """A resolved config of measurements, every key of their convention at its default."""
    return OmegaConf.to_container(composed("data=measurement", "data.root=somewhere"), resolve=True)


@pytest.mark.heavy
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
        dict(data__center=[50, 47.5]),
        dict(data__support=40),
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
