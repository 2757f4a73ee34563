"""XLA on the CPU: the same compiler and runtime as on a TPU. Its own pytest process: `pytest tests/xla`."""

import sys

import pytest

from utils import device as devices

if sys.modules.get("torch_xla") is None:
    sys.modules.pop("torch_xla", None)  # tests/conftest.py hides it
XLA = devices.get_device(use_tpu=True)  # before any backward pass of this process, else XLA's own ones fail
devices.setup_device(XLA)


@pytest.fixture(scope="session")
def xla():
    return XLA


@pytest.fixture
def counters():
    """counters() -> (graphs compiled, {operations that ran on the host}) since the last call."""
    import torch_xla.debug.metrics as metrics

    def read():
        compiled = (metrics.metric_data("CompileTime") or (0,))[0]
        fallbacks = {name for name in metrics.counter_names() if name.startswith("aten::")}
        metrics.clear_all()
        return compiled, fallbacks

    read()
    return read
