"""diffusers as our priors need it: without its other models and, where nobody else uses it, without what those need.

Its packages of models import all of them before one can be had, and it imports the compiler of torch and transformers, which
together take longer than torch. What is left out here is imported as ever by whoever asks for it later.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger("latentdaps")

PACKAGES = ("autoencoders", "transformers", "unets")  # of models; what ours import of them is loaded
OURS = (
    "models.autoencoders.autoencoder_kl",
    "models.autoencoders.vq_model",
    "models.unets.unet_2d",
    "models.unets.unet_2d_condition",
    "schedulers.scheduling_ddim",
)
USERS = ("accelerate", "peft", "xformers", "flash_attn")  # which diffusers imports if they are there, and which need the rest

_one_run = False


def serve_one_run() -> None:
    """This process ends with the run that it begins, so that what the run does not need nobody will ask for."""
    global _one_run
    _one_run = True


def load(ours_alone: bool) -> None:
    """Import what our priors need of diffusers, if nothing of it is there yet.

    ours_alone: the run names no class of others and compiles nothing. Where the process serves it alone, diffusers takes
    transformers for not installed, and its marks for torch's compiler are left out: they change nothing that is computed.
    Its schedulers look for scipy.stats only when they are called.
    """
    if "diffusers" in sys.modules:
        return
    rest: dict[str, ModuleType | None] = {}
    if ours_alone and _one_run and not any(map(find_spec, USERS)):
        rest = {"transformers": None, "torch._dynamo": _without_marks(), "scipy.stats": ModuleType("scipy.stats")}
    try:
        with _standing_in(rest):
            models = import_module("diffusers.models")
            folder = Path(str(models.__file__)).parent
            with _standing_in({f"{models.__name__}.{name}": _bare(folder / name) for name in PACKAGES}):
                for name in OURS:
                    import_module(f"diffusers.{name}")
    except Exception as error:  # a version that is built in another way is imported whole
        log.debug("diffusers is imported whole (%s: %s)", type(error).__name__, error)
        for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
            del sys.modules[name]


@contextmanager
def _standing_in(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Inside, an import of these that are not loaded yet gives what stands here, or for None says that there is none."""
    missing = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(missing)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in missing.items():
            if sys.modules.get(name, ...) is module:
                del sys.modules[name]


def _bare(folder: Path) -> ModuleType:
    """A package by its folder: its modules can be imported, and nothing of its own is run."""
    package = ModuleType(folder.name)
    package.__path__ = [str(folder)]
    return package


def _without_marks() -> ModuleType:
    """torch._dynamo, which diffusers asks to mark functions that the compiler takes as they are or leaves alone."""

    def unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
        return unmarked if function is None else function

    compiler = ModuleType("torch._dynamo")
    compiler.disable = compiler.allow_in_graph = unmarked  # type: ignore[attr-defined]
    return compiler
