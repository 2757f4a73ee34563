"""Say what is present, what is missing, and how to get it: data sets, priors, and optional files and packages.

python tools/check_setup.py              # everything
python tools/check_setup.py model        # only the priors; also: data, optional
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from utils.command_line import run
from utils.config.model import check_model
from utils.config.sections import Model
from utils.data import files_in
from utils.device import TPU_INSTALL, XLA_PACKAGE
from utils.errors import InputError
from utils.metrics.lpips import FILES as LPIPS_FILES
from utils.metrics.lpips_alex import FILE as LPIPS_ALEX_FILE
from utils.paths import PROJECT, find
from utils.weights import cached_snapshot, is_hub_id

LPIPS = (
    "https://download.pytorch.org/models/vgg16-397923af.pth (528 MB) and "
    "https://github.com/photosynthesis-team/photosynthesis.metrics/releases/download/v0.4.0/lpips_weights.pt (6 kB)"
)
LPIPS_ALEX = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth (233 MB)"
BLUR = "GOPRO_wVAE.pth, linked in the README of VinAIResearch/blur-kernel-space-exploring (Google Drive)"
PACKAGES = {
    XLA_PACKAGE: ("use_tpu=true", "pip install -e '.[xla]'"),
    "libtpu": ("use_tpu=true on a TPU", TPU_INSTALL),
    "transformers": ("model=stable-diffusion-*", "pip install -e '.[sd]'"),
    "deepinv": ("task=deepinv", "pip install -e '.[deepinv]'"),
}

SetupRow = tuple[str, str, str | None, str]  # setting, place, state (None: the user's own), how to get it


def configs(group: str) -> list[tuple[str, DictConfig]]:
    """(name, config) of every YAML file in a config group."""
    return [(path.stem, OmegaConf.load(path)) for path in sorted((PROJECT / "configs" / group).glob("*.yaml"))]


def data_rows() -> Iterator[SetupRow]:
    """One row per data config: name, place, state, how to get it."""
    for name, cfg in configs("data"):
        if OmegaConf.is_missing(cfg, "root"):
            yield f"data={name}", "data.root=...", None, cfg.source
            continue
        root, wanted = find(cfg.root), (cfg.end_id or 1)
        present = len(files_in(root, cfg.kind)) if root.is_dir() else 0
        if present >= wanted:
            state = f"{present} files"
        else:
            state = f"missing ({present} of {wanted})" if present else "missing"
        yield f"data={name}", cfg.root, state, cfg.source


def model_rows() -> Iterator[SetupRow]:
    """One row per prior."""
    for name, cfg in configs("model"):
        if OmegaConf.is_missing(cfg, "path"):
            yield f"model={name}", "model.path=...", None, cfg.source
            continue
        model = Model.model_validate(OmegaConf.to_container(cfg))
        try:
            check_model(model)
            present = not is_hub_id(model.path) or cached_snapshot(model.path) is not None
            state = "present" if present else "missing (not in the hub cache)"
        except InputError as error:
            state = "missing" if "not found" in str(error) or "not in the cache" in str(error) else f"missing: {error}"
        yield f"model={name}", cfg.path, state, cfg.source


def optional_rows() -> Iterator[SetupRow]:
    """Files and packages that a part of the program needs."""
    hub = Path(os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch"))
    of_torch = hub / "hub" / "checkpoints"  # as torch.hub.get_dir, without torch
    for setting, folder, names, how in (
        ("LPIPS scores", of_torch, LPIPS_FILES, LPIPS),
        ("LPIPS (AlexNet) scores", of_torch, (LPIPS_ALEX_FILE,), LPIPS_ALEX),
        ("task=nonlinear_blur", find("checkpoints"), ("GOPRO_wVAE.pth",), BLUR),
    ):
        present = all((folder / name).is_file() for name in names)
        yield setting, str(folder), "present" if present else "missing", how
    for package, (serves, install) in PACKAGES.items():
        state = "present" if importlib.util.find_spec(package) else "missing"
        yield serves, f"package {package}", state, install


PARTS = {"data": data_rows, "model": model_rows, "optional": optional_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)} (default: all)")
    parts = parser.parse_args().parts or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise InputError(f"{unknown[0]}: choose from {', '.join(PARTS)}")
    table = Table(title="what is here, and how to get the rest")
    for heading in ("setting", "place", "state", "how to get it"):
        table.add_column(heading, overflow="fold")
    for part in parts:
        for setting, place, state, how in PARTS[part]():
            missing = state is not None and state.startswith("missing")
            cells = (setting, place, "yours" if state is None else state, how if missing or state is None else "")
            table.add_row(*map(Text, cells), style="yellow" if missing else None)  # Text: brackets are no markup here
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 1000).print(table)  # in a file no address is broken


if __name__ == "__main__":
    run(main)
