"""The kernel network against the published state dict and against its equations, and the lines that wrong files end in."""

import math

import pytest
import torch
import torch.nn.functional as F

from operators.kernel_wizard import CODE_CHANNELS, KernelWizard, Level
from operators.nonlinear_blur import UNUSED, NonlinearBlur
from tests.worlds import published
from utils.errors import InputError

FEATURES, SIDE = 2, 128


def published_shapes():
    return {name: shape for name, shape in published.shapes("kernel_wizard").items() if not name.startswith(UNUSED)}


def test_names_and_shapes_are_those_of_the_published_weights():
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in KernelWizard().state_dict().items()}
    assert ours == published_shapes()


def test_the_published_file_loads_with_its_encoder_of_codes(tmp_path):
    state = published.constants("kernel_wizard")
    torch.save(state, tmp_path / "GOPRO_wVAE.pth")
    operator = NonlinearBlur(SIDE, str(tmp_path / "GOPRO_wVAE.pth"))
    assert operator.code.shape == (1, CODE_CHANNELS, 1, 1)
    loaded = operator.network.state_dict()
    assert loaded.keys() == published_shapes().keys()
    assert all((loaded[name] == state[name]).all() for name in loaded)


def reference(w, x, code, front, back):
    """adaptKernel as the published files compute it, on a state dict `w`; activations in place where they say so."""

    def conv(name, h, **kwargs):
        return F.conv2d(h, w[f"{name}.weight"], w.get(f"{name}.bias"), **kwargs)

    def residual(name, h):
        return h + conv(f"{name}.conv2", F.relu(conv(f"{name}.conv1", h, padding=1)), padding=1)

    def level(name, h, depth):
        if depth == 0:
            down = conv(f"{name}.down.0", h, stride=2, padding=1)
        else:
            F.leaky_relu_(h, 0.2)
            down = conv(f"{name}.down.1", h, stride=2, padding=1)
        inner = torch.cat((down, code), 1) if depth == 4 else level(f"{name}.submodule", down, depth + 1)
        up = F.conv_transpose2d(
            F.relu_(inner), w[f"{name}.up.1.weight"], w["adapter.model.up.1.bias"] if depth == 0 else None, stride=2, padding=1
        )
        return torch.tanh(up) if depth == 0 else torch.cat((up, h), 1)

    h = x
    for name, stride in (("0", 1), ("2", 2), ("4", 2)):
        h = F.leaky_relu(conv(f"feature_extractor.{name}", h, stride=stride, padding=1), 0.1)
    for i in range(front):
        h = residual(f"feature_extractor.{6 + i}", h)
    h = level("adapter.model", h, 0)
    for i in range(back):
        h = residual(f"recon_trunk.{i}", h)
    for i in (back, back + 3):
        h = F.leaky_relu(F.pixel_shuffle(conv(f"recon_trunk.{i}", h, padding=1), 2), 0.1)
    h = F.leaky_relu(conv(f"recon_trunk.{back + 6}", h, padding=1), 0.1)
    return x + conv(f"recon_trunk.{back + 8}", h, padding=1)


@pytest.mark.heavy
def test_network_equals_the_published_equations():
    generator = torch.Generator().manual_seed(0)
    network = KernelWizard(FEATURES, front=1, back=2).double()
    code_channels = network.adapter.model.submodule.submodule.submodule.submodule.up[1].in_channels // 2
    state = {
        name: torch.randn(t.shape, generator=generator, dtype=torch.float64) / math.sqrt(t[0].numel())
        for name, t in network.state_dict().items()
    }
    network.load_state_dict(state)
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    code = torch.randn(2, code_channels, 1, 1, generator=generator, dtype=torch.float64)
    ours, theirs = network(x, code), reference(state, x, code, 1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert (network(x, 2 * code) - ours).abs().max() > 1e-6  # the innermost level reaches the result


def test_adapter_skip_carries_the_activated_features():
    """The published network's activations work in place, which changes what its skip connections carry."""
    level = Level(4, 4, None)
    x = -torch.ones(1, 4, 4, 4)
    assert level(x, torch.zeros(1, 4, 2, 2))[:, 4:].flatten().tolist() == pytest.approx([-0.2] * 64)


@pytest.mark.heavy
def test_code_depends_on_the_seed_alone(tmp_path):
    path = tmp_path / "GOPRO_wVAE.pth"
    torch.save(published.constants("kernel_wizard"), path)
    a, b, c = (NonlinearBlur(SIDE, str(path), seed=s).code for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert c.std().item() == pytest.approx(1.2, rel=0.15)


def test_without_its_weights_it_is_one_line(tmp_path):
    with pytest.raises(InputError, match="GOPRO_wVAE.pth"):
        NonlinearBlur(256, str(tmp_path / "absent.pth"))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="missing, unexpected"):
        NonlinearBlur(256, str(tmp_path / "other.pth"))
