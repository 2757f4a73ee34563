"""A sequential population at its start: the certificate's file and what it was calibrated for, and what is refused."""

import copy
import json
import shutil

import pytest
from omegaconf import OmegaConf

from tests.worlds import populations, runs
from tests.worlds.populations import ALWAYS
from utils.errors import InputError


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_prior):
    return populations.place(tmp_path_factory.mktemp("sequential"), tiny_prior)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("pruning_step=400",), "population=sequential: pruning_step=400 needs all"),
        (("use_tpu=true", "gpu=0"), "population=sequential: its rounds differ in size"),
        (("sequential.start=4",), "sequential.start=4: must not exceed num_samples=3"),
        (("sequential.start=1", "sequential.add=1", "repulsion_scale=0.3"), "repulsion_scale=0.3: acts within a round"),
        (("task.demo_langevin.operator.sigma=0",), "population=sequential: without noise"),
        (("sequential.certificate=none.json",), "sequential.certificate=none.json: file not found"),
        (("sequential.add=0",), "sequential.add=0"),
        (("recombination_step=700",), "recombination.donors=true: with population=sequential"),
        (("+mechanisms.mine={_target_:tests.population.test_certificate_file.Whole}",), "mechanisms.mine: Mechanism needs all"),
    ],
)
def test_what_needs_a_fixed_population_is_refused_in_one_line(place, overrides, message):
    with pytest.raises(InputError) as caught:
        place.run("refused", "population=sequential", *overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def Whole(clock):
    """A mechanism of one's own that acts on all particles of an image."""
    from utils.sampling.mechanism import Mechanism

    mechanism = Mechanism()
    mechanism.needs_all = True
    return mechanism


def certificate(path, **changes):
    from utils.config.check import check
    from utils.population.settings import holds_for

    held = holds_for(check(runs.config(changes.pop("overrides"))).composition.identity)
    content = {"thresholds": {"deviation": 2.0, "denoising": 0.5, "agreement": None}, "sigmas": [0.3, 0.5, 0.7]}
    path.write_text(json.dumps({**content, "holds_for": held, "complete": True, "images": 9, "rates": {}, **changes}))
    return path


EXCHANGE = ("recombination_step=700", "recombination.donors=false")


def checked(place, *overrides):
    from utils.config.check import check

    return check(runs.config(place.all("checked", "population=sequential", *overrides)))


@pytest.mark.heavy
def test_thresholds_come_from_the_file_and_are_part_of_what_a_run_is(place, tmp_path):
    path = certificate(tmp_path / "faces.json", overrides=place.all("checked"))
    found = checked(place, f"sequential.certificate={path}")
    assert found.sequential.thresholds.model_dump() == {"deviation": 2.0, "denoising": 0.5, "agreement": None}
    assert found.composition.notes == () and "denoising: 0.5" in found.composition.documents["config.yaml"]
    other = certificate(tmp_path / "other.json", overrides=place.all("checked"), thresholds={"deviation": 2.5})
    prints = [checked(place, f"sequential.certificate={p}").composition.fingerprint for p in (path, other)]
    written = checked(place, "sequential.thresholds={deviation:2,denoising:0.5,agreement:null}").composition.fingerprint
    assert prints[0] == written != prints[1]


@pytest.mark.heavy
def test_a_certificate_of_other_weights_is_refused_in_one_line(place, tmp_path, tiny_prior):
    from utils.digests import of_prior

    shutil.copytree(tiny_prior, prior := tmp_path / "prior")
    own = of_prior({"path": str(prior)})
    usual = certificate(prior / "certificate.json", overrides=place.all("checked"), prior=own)
    named = certificate(prior / "certificate-other.json", overrides=place.all("checked"), prior={"model.path": "others"})
    assert checked(place, f"model.path={prior}").composition.notes == ()
    line = (
        f"was calibrated for other weights than those of model.path={prior}; make it again with tools/calibrate_certificate.py"
    )
    with pytest.raises(InputError, match=f"certificate {named}: {line}"):
        checked(place, f"model.path={prior}", f"sequential.certificate={named}")
    (weights := prior / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(InputError, match=f"certificate {usual}: was calibrated for other weights") as caught:
        checked(place, f"model.path={prior}")
    assert "\n" not in str(caught.value)
    assert checked(place, f"model.path={prior}", ALWAYS).composition.notes == ()
    certificate(usual, overrides=place.all("checked"))  # as it was made before there were digests
    assert checked(place, f"model.path={prior}").composition.notes == ()


@pytest.mark.heavy
def test_a_certificate_of_another_setting_is_named_once(place, tmp_path):
    path = certificate(tmp_path / "faces.json", overrides=place.all("checked"))
    (note,) = checked(place, f"sequential.certificate={path}", "task.demo_langevin.operator.sigma=0.1").composition.notes
    assert "was calibrated elsewhere: task.operator.sigma is 0.05 there and 0.1 here" in note
    (note,) = checked(place, f"sequential.certificate={path}", "sequential.sigmas=[1.0]").composition.notes
    assert "sequential.sigmas is [0.3, 0.5, 0.7] there and [1.0] here" in note
    (note,) = checked(place, f"sequential.certificate={path}", "temperature=2").composition.notes
    assert "was calibrated elsewhere: temperature is" in note
    (note,) = checked(place, f"sequential.certificate={path}", "precision=bf16").composition.notes
    assert "was calibrated elsewhere: precision is the default there and bf16 here" in note


def leaves(nodes, *above):
    """(path, value) of all values of a nested dict."""
    for key, value in nodes.items():
        yield from leaves(value, *above, key) if isinstance(value, dict) else [((*above, key), value)]


# which particles there are, where they are computed, and how files write numbers
COUNTS_FOR_NOTHING = {
    *("num_samples", "first_particle", "seed", "task_group", "success.threshold_db", "success.margin_db"),
    *("population", "sequential.start", "sequential.add", "sequential.sigmas", "sequential.thresholds"),
    *("use_tpu", "step_clock", "model.path", "data.root", "data.kind", "data.quantity", "data.gain"),
}


def test_a_certificate_holds_for_every_setting_that_changes_what_particles_are(place):
    from utils.config.fingerprint import identity
    from utils.population.settings import holds_for

    on = ("recombination_step=700", "optimization_step=400", "repulsion_scale=0.1", "pruning_step=500", "children=2")
    on += ("start.bank=1", "polish.keep=1", "pyramid.levels=[8,16]", "+mechanisms.mine={_target_:mine.Mine,share:1}")
    on += ("population=sequential", "temperature=2", "precision=bf16", "fidelity.poisson=1")
    on += (
        "+data.quantity=intensity",
        "+data.gain=2",
        "+data.bin=2",
        "+data.support=16",
        "+data.mask=[0]",
        "+model.scaling_factor=1",
    )
    whole = identity(OmegaConf.to_container(runs.config(place.all("checked", *on)), resolve=True))
    counts_for_nothing = set()
    for path, _ in leaves(whole):
        changed = copy.deepcopy(whole)
        block = changed
        for key in path[:-1]:
            block = block[key]
        block[path[-1]] = "another"
        if holds_for(changed) == holds_for(whole):
            counts_for_nothing.add(".".join(path))
    assert counts_for_nothing == COUNTS_FOR_NOTHING


@pytest.mark.heavy
def test_a_detail_of_a_mechanism_that_differs_is_named(place, tmp_path):
    path = certificate(tmp_path / "faces.json", overrides=place.all("checked", *EXCHANGE))
    of_file = (*EXCHANGE, f"sequential.certificate={path}")
    assert checked(place, *of_file, "num_samples=2", "seed=7", "sequential.add=1").composition.notes == ()
    (note,) = checked(place, *of_file, "recombination.excess=2.5").composition.notes
    assert note.endswith("was calibrated elsewhere: recombination.excess is 1.0 there and 2.5 here")


@pytest.mark.heavy
def test_an_older_certificate_says_what_it_cannot_tell(place, tmp_path):
    """It held the switches, and of the exchange that it takes nothing from other particles."""
    older = certificate(tmp_path / "older.json", overrides=place.all("checked", *EXCHANGE))
    content = json.loads(older.read_text())
    held = {key: content["holds_for"][key] for key in ("task", "sampler", "recombination_step")}
    del content["complete"]
    of_file = (*EXCHANGE, f"sequential.certificate={older}")
    older.write_text(json.dumps({**content, "holds_for": held | {"donors": False}}))
    for override in ("recombination.excess=1.0", "recombination.excess=2.5"):
        (note,) = checked(place, *of_file, override).composition.notes
        assert f"{older} is older and cannot tell whether it holds for recombination.every, recombination.excess, " in note
        assert "donors" not in note and "choice" not in note and "recombination_step" not in note and "\n" not in note
    found = checked(place, *of_file, "temperature=2").composition.notes
    assert "was calibrated elsewhere: temperature is the default there and 2 here" in found[0] and "older" in found[1]
    older.write_text(json.dumps({**content, "holds_for": held}))
    assert "recombination.donors is True there and False here" in checked(place, *of_file).composition.notes[0]


@pytest.mark.heavy
@pytest.mark.parametrize("key, value", [("channels", "1"), ("mask", "[0.0]"), ("scale", "free")])
def test_a_certificate_of_whole_measurements_says_that_it_is_used_on_others(key, value, place, tmp_path):
    path = certificate(tmp_path / "faces.json", overrides=place.all("checked"))
    (tmp_path / "measured").mkdir()
    measured = ("data=measurement", f"data.root={tmp_path / 'measured'}", f"sequential.certificate={path}")
    assert checked(place, *measured).composition.notes == ()
    (note,) = checked(place, *measured, f"data.{key}={value}").composition.notes
    assert f"was calibrated elsewhere: data.{key} is the default there" in note


@pytest.mark.heavy
def test_a_certificate_with_an_early_stop_is_refused(place, tmp_path):
    stopping = {"deviation": 2.0, "denoising": 0.5, "agreement": None, "stop_step": 300}
    path = certificate(tmp_path / "old.json", overrides=place.all("checked"), thresholds=stopping)
    with pytest.raises(InputError, match=r"old\.json: cannot be read \(.*stop_step.*make it again with tools/calibrate"):
        checked(place, f"sequential.certificate={path}")


def test_particles_that_only_turn_their_channels_stay_independent(place):
    assert checked(place, ALWAYS, "recombination_step=700", "recombination.donors=false").recombination_step == 700


@pytest.mark.heavy
def test_without_a_certificate_it_says_what_is_used(place):
    (note,) = checked(place).composition.notes
    assert "within 3 standard deviations" in note and "0.95" in note and "tools/calibrate_certificate.py" in note
    assert checked(place, ALWAYS).composition.notes == ()
    assert "sequential" not in checked(place, "population=fixed").composition.identity


@pytest.mark.heavy
def test_of_several_beside_the_checkpoint_the_one_of_this_setting_is_taken(place, tmp_path, tiny_prior):
    shutil.copytree(tiny_prior, prior := tmp_path / "prior")
    noisy = "task.demo_langevin.operator.sigma=0.1"
    certificate(prior / "certificate.json", overrides=place.all("checked"))
    certificate(prior / "certificate-noisy.json", overrides=place.all("checked", noisy), thresholds={"deviation": 2.5})
    for overrides, deviation in (((), 2.0), ((noisy,), 2.5)):
        found = checked(place, f"model.path={prior}", *overrides)
        assert found.sequential.thresholds.deviation == deviation and found.composition.notes == ()
    found = checked(place, f"model.path={prior}", "sequential.sigmas=[1.0]")  # of none of them: the usual one, and it is said
    assert found.sequential.thresholds.deviation == 2.0 and "certificate.json was calibrated" in found.composition.notes[0]
    (prior / "certificate.json").unlink()
    assert checked(place, f"model.path={prior}", noisy).sequential.thresholds.deviation == 2.5


def test_a_damaged_certificate_ends_in_one_line(place, tmp_path):
    (tmp_path / "bad.json").write_text('{"thresholds": {}}')
    with pytest.raises(InputError, match=r"certificate .*bad\.json: cannot be read \(thresholds\.deviation: field required"):
        checked(place, f"sequential.certificate={tmp_path / 'bad.json'}")
