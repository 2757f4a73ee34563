"""LPIPS through piq held to the package `lpips`, and the AlexNet row, each where its backbone is found: backbones have
seeded random weights here, the linear weights are the package's own."""

import json
import logging
from pathlib import Path

import lpips as package
import pytest
import torch
from PIL import Image
from torchvision.models import alexnet, vgg16

from tests.worlds.tiny import vq_pipeline
from utils.metrics.lpips import FILES as LPIPS_FILES
from utils.metrics.lpips import Lpips, log
from utils.metrics.lpips_alex import FILE as LPIPS_ALEX_FILE
from utils.metrics.lpips_alex import LpipsAlex
from utils.records.aggregate import aggregate
from utils.records.files import RecordError, read_record, record_path, write_record
from utils.records.metrics import check_metrics

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchvision")  # piq asks torchvision in an older way

LINEAR = Path(package.__file__).parent / "weights" / "v0.1"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The empty folder where torchvision and piq look for weights."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder.parent))
    return folder


def random_backbone(build):
    """The state dict of a torchvision network: seeded random convolutions, and a classifier that takes no space in a file."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (2 / max(1, shape[1:].numel())) ** 0.5
        if name.startswith("features.")
        else torch.zeros(()).expand(shape)
        for name, shape in shapes.items()
    }


def images(count=3, side=64):
    """Random pictures in [-1.1, 1.1], of which the scores clip what lies outside, and a truth: (P, 3, H, W), (3, H, W)."""
    generator = torch.Generator().manual_seed(1)
    x = 2.2 * torch.rand(count + 1, 3, side, side, generator=generator) - 1.1
    truth = x[-1].clip(-1, 1)
    closeness = torch.linspace(0, 0.9, count)[:, None, None, None]
    return closeness * truth + (1 - closeness) * x[:-1], truth


def test_lpips_is_null_with_one_warning_without_weights(hub, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    x, truth = images(1)
    with caplog.at_level(logging.INFO, logger="latentdaps"):
        lpips, alex = Lpips(), LpipsAlex()
        assert lpips(x, truth) is None and lpips(x, truth) is None and alex(x, truth) is None
    assert len(caplog.records) == 1 and "vgg16-397923af.pth" in caplog.text


def linear_weights(net):
    """The five (1, C, 1, 1) of the package; in this form piq keeps them."""
    state = torch.load(LINEAR / f"{net}.pth", map_location="cpu", weights_only=True)
    return [state[f"lin{i}.model.1.weight"] for i in range(5)]


def of_the_package(backbone, pooling):
    """The network of the package `lpips` with these VGG16 weights and its own linear weights; `pooling` replaces its max."""
    network = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    parts = [part for name, part in network.net.named_children() if name.startswith("slice")]
    own = {name: value for part in parts for name, value in part.state_dict(keep_vars=True).items()}
    with torch.no_grad():
        for name, value in own.items():  # the parts keep torchvision's numbers of the layers
            value.copy_(backbone[f"features.{name}"])
    for part in parts:
        for name, layer in part.named_children():
            if isinstance(layer, torch.nn.MaxPool2d):
                setattr(part, name, pooling)
    return network


@pytest.mark.heavy
def test_lpips_through_piq_is_that_of_the_lpips_package(hub):
    """With average pooling on both sides, as DAPS reports it; the package's own max pooling is another number."""
    backbone = random_backbone(vgg16)
    linear = linear_weights("vgg")
    torch.save(backbone, hub / LPIPS_FILES[0])
    torch.save(linear, hub / LPIPS_FILES[1])
    x, truth = images()
    ours = Lpips()(x, truth)  # (P,)
    clipped, reference = x.clip(-1, 1), truth.expand(x.shape)
    with torch.no_grad():
        theirs = of_the_package(backbone, torch.nn.AvgPool2d(2))(clipped, reference).flatten()
        with_max = of_the_package(backbone, torch.nn.MaxPool2d(2))(clipped, reference).flatten()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert ours[0] > ours[1] > ours[2] > 0
    assert ((with_max - theirs).abs() > 1e-3 * theirs).all()


@pytest.mark.heavy
def test_lpips_is_zero_for_equal_images_and_grows_with_noise(hub):
    torch.save(random_backbone(vgg16), hub / LPIPS_FILES[0])
    torch.save([torch.rand(1, c, 1, 1) for c in (64, 128, 256, 512, 512)], hub / LPIPS_FILES[1])
    x, truth = images()
    far, near, equal = Lpips()(torch.stack([x[0], x[2], truth]), truth).tolist()
    assert equal == pytest.approx(0, abs=1e-6) and 0 < near < far


def alex_by_hand(backbone, x, truth):
    """(P,) the formula of LPIPS written out: unit-length features, squared differences, linear weights, mean over places."""
    features = alexnet(weights=None).features
    features.load_state_dict({name[len("features.") :]: v for name, v in backbone.items() if name.startswith("features.")})
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    a, b = ((0.5 * v + 0.5 - mean) / std for v in (x, truth.expand(x.shape)))
    linear, total = linear_weights("alex"), 0.0
    for layer in features[:12]:
        a, b = layer(a), layer(b)
        if isinstance(layer, torch.nn.ReLU):
            unit_a, unit_b = (v / v.square().sum(1, keepdim=True).sqrt() for v in (a, b))
            total = total + (linear.pop(0) * (unit_a - unit_b).square()).sum(1).mean((1, 2))
    assert not linear
    return total


@pytest.mark.heavy
def test_the_alexnet_score_is_the_formula_of_lpips(hub):
    backbone = random_backbone(alexnet)
    torch.save(backbone, hub / LPIPS_ALEX_FILE)
    x, truth = images()
    with torch.no_grad():
        expected = alex_by_hand(backbone, x.clip(-1, 1), truth)
    torch.testing.assert_close(LpipsAlex()(x, truth), expected, rtol=1e-5, atol=0)


@pytest.mark.heavy
@pytest.mark.filterwarnings("error")
def test_images_too_small_for_alexnet_have_no_such_score(hub):
    torch.save(random_backbone(alexnet), hub / LPIPS_ALEX_FILE)
    score = LpipsAlex()
    assert score(*images(side=LpipsAlex.MIN_SIDE - 1)) is None
    assert len(score(*images(side=LpipsAlex.MIN_SIDE))) == 3


@pytest.fixture
def bigger(tmp_path, tiny_images):
    """Overrides of a tiny run on 32x32 images: AlexNet takes no 16x16."""
    for path in sorted(tiny_images.glob("*.png")):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.open(path).resize((32, 32)).save(tmp_path / "images" / path.name)
    vq_pipeline().save_pretrained(tmp_path / "prior")
    return (
        f"model.path={tmp_path}/prior",
        "model.resolution=32",
        f"data.root={tmp_path}/images",
        "data.resolution=32",
        "num_samples=2",
        "data.end_id=1",
    )


@pytest.mark.program
def test_a_run_reports_the_alexnet_row_where_the_backbone_is(hub, run, bigger, capsys):
    folder, without = run(*bigger)
    assert "lpips_alex" not in without and "lpips_alex" not in read_record(record_path(folder, 0))[0]["scores"]
    assert "AlexNet" not in (folder / "eval.md").read_text() + capsys.readouterr().out

    torch.save(random_backbone(alexnet), hub / LPIPS_ALEX_FILE)
    _, metrics = run(*bigger, "data.end_id=2")  # continues: image 0 was made without it
    block = metrics["lpips_alex"]
    assert block["sample"][0] == [None, None] and block["mean"][0] is None
    assert len(block["sample"][1]) == 2 and 0 < block["min"][1] <= block["mean"][1] <= block["max"][1]
    assert check_metrics(metrics, "run").scores["lpips_alex"].sample == block["sample"]
    (row,) = [line for line in (folder / "eval.md").read_text().splitlines() if "LPIPS (AlexNet)" in line]
    assert row.split(" | ")[1] == f"{block['min'][1]:.3f}"  # the best is the lowest
    assert "LPIPS (AlexNet)" in capsys.readouterr().out
    rest = {key: value for key, value in metrics.items() if key != "lpips_alex"}
    assert set(rest) == set(without) and list(metrics).index("lpips_alex") == list(metrics).index("lpips") + 1


@pytest.mark.program
def test_a_record_with_one_alexnet_score_too_few_is_refused(hub, run, bigger):
    torch.save(random_backbone(alexnet), hub / LPIPS_ALEX_FILE)
    folder, metrics = run(*bigger)
    record, arrays = read_record(record_path(folder, 0))
    assert json.loads(json.dumps(aggregate([record], "run").content()["lpips_alex"])) == metrics["lpips_alex"]
    record["scores"]["lpips_alex"].pop()
    write_record(folder, record, arrays)
    with pytest.raises(RecordError, match="scores.lpips_alex has not one value for each of the 2 particles"):
        read_record(record_path(folder, 0))
