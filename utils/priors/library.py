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

PACKAGES = ("autoencoders", "transformers", "unets")  # of models; what ours import of them is loaded
OURS = ("autoencoders.autoencoder_kl", "autoencoders.vq_model", "unets.unet_2d", "unets.unet_2d_condition")
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
    stand_ins: dict[str, ModuleType | None] = {}
    if ours_alone and _one_run and not any(map(find_spec, USERS)):
        stand_ins = {name: ModuleType(name) for name in ("torch._dynamo", "scipy.stats")}
        vars(stand_ins["torch._dynamo"]).update(disable=_unmarked, allow_in_graph=_unmarked)
        stand_ins["transformers"] = None
    try:
        with _standing_in(stand_ins):
            models = import_module("diffusers.models")
            bare = {f"diffusers.models.{name}": ModuleType(name) for name in PACKAGES}  # nothing of their own is run
            for name, package in zip(PACKAGES, bare.values()):
                package.__path__ = [str(Path(str(models.__file__)).with_name(name))]
            with _standing_in(bare):
                for name in OURS:
                    import_module(f"diffusers.models.{name}")
    except Exception as error:  # a version that is built in another way is imported whole
        logging.getLogger("latentdaps").debug("diffusers is imported whole (%s: %s)", type(error).__name__, error)
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
        for name in missing:
            sys.modules.pop(name, None)


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """In place of a decorator by which torch's compiler takes a function as it is, or leaves it alone."""
    return _unmarked if function is None else function
