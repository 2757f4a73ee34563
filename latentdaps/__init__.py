"""LatentDAPS from Python: what the command line computes, on arrays, for objects of one's own, in a notebook.

    import latentdaps

    model = latentdaps.load("demo-faces", task="phase_retrieval", sampler="fast", num_samples=4)
    y = model.measure(images, seed=42)                # images (N, 3, H, W) in [0, 1], or paths of files
    result = model.sample(y)                          # result.images, .loss, .pick, .plot(), .save("results/mine")

Wrong input raises InputError with the line that the command line would print. torch is imported by `load`.
"""

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def refuse_namesakes() -> None:
    """Raises ImportError where a module of somebody else would be imported, or was, in the place of one of ours."""
    for name in ("utils", "operators", "sampler"):
        module = sys.modules.get(name) or find_spec(name)
        place = getattr(module, "__file__", None) or getattr(module, "origin", None)
        if place and PROJECT not in Path(place).resolve().parents:
            raise ImportError(
                f"{name}={place}: is imported in the place of {PROJECT / name}; rename it, or keep its folder off PYTHONPATH "
                "and start in another one"
            )


refuse_namesakes()
warnings.filterwarnings("ignore", "IProgress not found")  # of a notebook without ipywidgets, whose bars nobody draws here

from latentdaps.model import Measurements, Model, load  # noqa: E402
from latentdaps.result import Result  # noqa: E402
from utils.errors import InputError  # noqa: E402

__all__ = ["InputError", "Measurements", "Model", "Result", "load"]
