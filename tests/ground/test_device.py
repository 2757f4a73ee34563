"""The device is known in one place, and a TPU that is not there ends in one line."""

import os
import re
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from utils import device as devices
from utils import kernels
from utils.errors import InputError
from utils.paths import PROJECT

DEVICE_WORDS = re.compile(r"torch_xla|torch\.cuda|\.is_cuda|\.is_xla|device\.type\b|[\"']xla[\"']")
DEVICE_FILE = PROJECT / "utils" / "device.py"


def test_one_file_knows_the_devices():
    sources = [PROJECT / name for name in ("posterior_sample.py", "sampler.py")]
    for folder in ("latentdaps", "utils", "operators", "tools"):
        sources += (PROJECT / folder).rglob("*.py")
    knowing = {path for path in sources if DEVICE_WORDS.search(path.read_text())}
    assert knowing == {DEVICE_FILE}


def fake_xla(monkeypatch, kind="TPU", error=None, launch=None):
    """A torch_xla whose device() returns a device of `kind` or raises `error`."""

    def device():
        if error:
            raise error
        return torch.device("cpu")

    package, runtime = ModuleType("torch_xla"), ModuleType("torch_xla.runtime")
    package.device, package.runtime, package.launch = device, runtime, launch
    runtime.device_type = lambda: kind
    monkeypatch.setitem(sys.modules, "torch_xla", package)
    monkeypatch.setitem(sys.modules, "torch_xla.runtime", runtime)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(devices.log, "warning", lambda text, *values: lines.append(text % values))
    return lines


def the_line(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_torch_xla(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_xla", None)
    line = the_line(lambda: devices.get_device(use_tpu=True))
    assert line == f"use_tpu=true: torch_xla is not installed; install it with {devices.TPU_INSTALL}"


def test_a_torch_xla_of_another_torch(monkeypatch):
    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "torch_xla":
                raise ImportError("_XLAC.so: undefined symbol: _ZN5torch4lazy13MetricFnValueEd\nmore")

    monkeypatch.delitem(sys.modules, "torch_xla", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    line = the_line(lambda: devices.get_device(use_tpu=True))
    assert "does not fit this torch (_XLAC.so: undefined symbol" in line and devices.TPU_INSTALL in line


@pytest.mark.parametrize("error", [OSError("libtpu not found"), RuntimeError("Failed to get global TPU topology.\nmore")])
def test_no_tpu(monkeypatch, error):
    fake_xla(monkeypatch, error=error)
    line = the_line(lambda: devices.get_device(use_tpu=True))
    assert "no TPU found" in line and str(error).splitlines()[0] in line and devices.TPU_INSTALL in line


def test_a_tpu_in_use(monkeypatch):
    fake_xla(monkeypatch, error=RuntimeError("ABORTED: The TPU is already in use by process with pid 4711."))
    line = the_line(lambda: devices.get_device(use_tpu=True))
    assert "another process uses the TPU" in line and "pid 4711" in line


def test_the_same_lines_from_the_workers_of_all_cores(monkeypatch):
    def launch(work, args):
        raise ValueError("max_workers must be greater than 0")  # torch_xla 2.9 where it counts no chip

    fake_xla(monkeypatch, launch=launch)
    assert "no TPU found (max_workers" in the_line(lambda: devices.run_on_cores(print, ()))


@pytest.mark.parametrize("error", [InputError("data.root=x: gone"), devices.CoreFailure("core 3: KeyError")])
def test_an_error_of_the_program_on_a_core_is_not_called_a_missing_tpu(monkeypatch, error):
    def launch(work, args):
        raise error

    fake_xla(monkeypatch, launch=launch)
    with pytest.raises(type(error)) as caught:
        devices.run_on_cores(print, ())
    assert caught.value is error


def test_xla_on_something_else_says_so(monkeypatch, said):
    fake_xla(monkeypatch, kind="CPU")
    devices.get_device(use_tpu=True)
    assert said == ["use_tpu=true runs XLA on CPU (PJRT_DEVICE=CPU), not on a TPU"]


def test_a_tpu_is_asked_for_unless_another_device_is_named(monkeypatch, said):
    monkeypatch.delenv("PJRT_DEVICE")
    fake_xla(monkeypatch)
    devices.get_device(use_tpu=True)
    assert os.environ["PJRT_DEVICE"] == "TPU" and said == []


def share(core, cores, limit=None):
    """(core, cores) that `work` sees on one of `cores` cores, None if it is not called there."""
    seen = []
    devices._on_core(core, lambda *numbers: seen.append(numbers), (), limit)
    return seen[0] if seen else None


def test_num_cores_limits_the_cores(monkeypatch):
    fake_xla(monkeypatch)
    sys.modules["torch_xla.runtime"].world_size = lambda: 8
    assert [share(core, 8) for core in range(8)] == [(core, 8) for core in range(8)]
    assert [share(core, 8, limit=3) for core in range(8)] == [(0, 3), (1, 3), (2, 3), *[None] * 5]
    assert the_line(lambda: share(0, 8, limit=9)) == "num_cores=9: XLA has 8 cores here; num_cores=null takes all"


def test_num_cores_without_a_tpu_is_refused(composed, tiny):
    import posterior_sample

    assert "num_cores=2: only use_tpu=true" in the_line(lambda: posterior_sample.run(composed(*tiny, "num_cores=2")))


def test_a_tpus_peak_counts_only_as_a_new_high(monkeypatch):
    peaks = iter([100, 300, 300, 300])  # MB: loaded, sampled, then nothing larger
    monkeypatch.setattr(devices, "_xla_peak_bytes", lambda device: next(peaks) * 2**20)
    monkeypatch.setattr(devices, "_peak_at_reset", {})
    device = torch.device("xla", 0)
    devices.reset_peak_memory(device)
    assert devices.peak_memory_mb(device) == 300
    devices.reset_peak_memory(device)
    assert devices.peak_memory_mb(device) is None


@pytest.mark.parametrize("shape, pads", [((2, 3, 16, 16), (4, 4)), ((1, 3, 33, 20), (8, 5))])
def test_both_forms_of_the_spectrum_agree(shape, pads):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    by_fft, by_products = (form(x, *pads) for form in (kernels.spectrum_by_fft, kernels.spectrum_by_products))
    torch.testing.assert_close(by_products, by_fft, rtol=0, atol=1e-9)  # sqrt(1e-20) = 1e-10 where it vanishes
    weights = torch.rand(by_fft.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, gradient = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (by_fft, by_products))
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)


def test_the_products_have_a_finite_gradient_where_the_spectrum_is_zero():
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(kernels.spectrum_by_products(x, 2, 2).sum(), x)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_upsampling_is_pytorchs_bit_for_bit(memory_format):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 7, 5, generator=generator).contiguous(memory_format=memory_format).requires_grad_()
    weights = torch.randn(2, 8, 14, 10, generator=generator).contiguous(memory_format=memory_format)
    expected, ours = F.interpolate(x, scale_factor=2.0, mode="nearest"), kernels.DoubleNearest.apply(x)
    assert torch.equal(ours, expected)
    assert torch.equal(*(torch.autograd.grad(y, x, weights)[0] for y in (ours, expected)))


def test_the_decoder_has_no_other_upsampling(tiny_prior):
    from diffusers.models.upsampling import Upsample2D

    from utils.priors.latent_diffusion import load_pipeline

    decoder = load_pipeline(tiny_prior, torch.device("cpu")).autoencoder.decoder
    assert sum(isinstance(module, kernels.UpsampleByTwo) for module in decoder.modules()) == 1
    assert not any(isinstance(module, Upsample2D) for module in decoder.modules())


def test_a_run_without_a_tpu_does_not_import_torch_xla_and_one_with_it_still_can(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch_xla", raising=False)
    devices.silence_unused_xla()
    with pytest.raises(ImportError):
        __import__("torch_xla")
    imported = []
    monkeypatch.setattr("builtins.__import__", lambda name, *_: imported.append(name) or ModuleType(name))
    devices._import_xla()
    assert "torch_xla" in imported and sys.modules.get("torch_xla", 0) is not None and not devices._hidden
