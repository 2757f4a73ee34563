"""From a name, keys and objects to a model, which measures and samples."""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from latentdaps.result import ImageResult, Result, as_array
from utils import device as devices
from utils.config.check import check
from utils.config.compose import compose, quoted
from utils.config.settings import Settings
from utils.conventions import Convention
from utils.data import PUT_BACK, Given, Lost, Measurement, fitted, items_of, select_images
from utils.errors import InputError
from utils.measurements import Reading, reading
from utils.paths import PROJECT, find
from utils.records.files import clean
from utils.records.folder import RunFolder
from utils.running import console

if TYPE_CHECKING:
    from operators.base import Operator
    from utils.priors.base import LatentPrior
    from utils.sampling.outcome import SampleResult, StepInfo

IN_MEMORY = "given in Python"  # data.root, or model.path, of what is in no folder
OF_ONES_OWN = ("mechanisms.", "metrics.", "fidelity.terms.")  # blocks to which a user adds keys
OF_A_RUN = {  # keys that act in posterior_sample.py alone, with what takes their place here
    "callbacks": "give on_step to sample, which is told of each step",
    "workers": "leave it out: sample computes in this process",
    "shard": "give measure a part of the images, and start_id",
    "save_arrays": "result.images holds the pictures as float32",
}


def load(
    name: str | None = None,
    /,
    *,
    prior: "LatentPrior | None" = None,
    operator: "Operator | None" = None,
    overrides: Sequence[str] | str = (),
    **keys: Any,
) -> "Model":
    """Prior, operator and sampler of a configuration, ready to measure and to sample. Raises InputError.

    name: of configs/model; None: the default. Where a data set of configs/data has it too, that is the set of `measure()`
    prior, operator: objects in the place of those that the configuration names; `gpu` is then by default where the prior is
    keys: any key of the configuration but OF_A_RUN, nested ones as dicts: sampler="fast", data={"end_id": 3}
    overrides: further ones as on the command line: ["data.end_id=3"]
    """
    further = [overrides] if isinstance(overrides, str) else list(overrides)
    texts = [text for key, value in keys.items() for text in overrides_of(key, value)] + further
    first = [] if name is None else [f"model={name}"]
    for key, part, needed in (("prior", prior, "device"), ("prior", prior, "resolution"), ("operator", operator, "sigma")):
        if part is not None and (isinstance(part, type) or not hasattr(part, needed)):
            raise InputError(f"{key}: {part!r:.80} has no {needed}; give an object of your {key}'s class")
    if prior is not None:
        first = ["model=own", f"gpu={devices.gpu_of(prior.device)}"]
    if first and not any(map(chooses_data, texts)):
        own_set = prior is None and (PROJECT / "configs/data" / f"{name}.yaml").is_file()
        first += [f"data={name}"] if own_set else ["data=folder", f'data.root="{IN_MEMORY}"']
    return Model([*first, *texts], prior, operator)


def whole(key: str, value: Any) -> int:
    """A whole number of Python or of NumPy. Raises InputError."""
    try:
        return index(value)
    except TypeError:
        raise InputError(f"{key}={value!r:.80}: give a whole number") from None


def chooses_data(text: str) -> bool:
    """Whether an override names a set of images: data=..., or an experiment that has one (or is not of this program)."""
    key, _, value = text.partition("=")
    experiment = PROJECT / "configs" / "experiment" / f"{value}.yaml"
    return key == "data" or key == "experiment" and not (experiment.is_file() and "/data:" not in experiment.read_text())


def overrides_of(key: str, value: Any) -> Iterator[str]:
    """A key with its value as the command line writes them; a dict is one override for each of its values."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from overrides_of(f"{key}.{name}", inner)
        return
    override = _of_text(key, value) if isinstance(value, str | Path) else _of_others(key, value)
    yield f"++{override}" if key.startswith(OF_ONES_OWN) else override


def _of_text(key: str, text: str | Path) -> str:
    """Quoted where Hydra would read something else."""
    plain = f"{key}={text}"
    try:
        alike = OverridesParser.create().parse_override(plain).value() == str(text)
    except HydraException:
        alike = False
    return plain if alike else quoted(key, str(text))


def _of_others(key: str, value: Any) -> str:
    try:
        return f"{key}={json.dumps(value, ensure_ascii=False, default=lambda number: number.tolist())}"
    except (TypeError, AttributeError):
        accepted = "a text, a number, a list or a dict"
        raise InputError(f"{key}: {type(value).__name__} is no value of a configuration; give {accepted}") from None


def described(part: Any) -> dict[str, str]:
    """What the configuration says of an object: its class, and a digest of the numbers and texts that it holds."""
    total = hashlib.sha256()
    for content in contents("", part, set()):
        total.update(content)
    return {"_target_": f"{type(part).__module__}.{type(part).__qualname__}", "digest": total.hexdigest()[:16]}


def contents(name: str, value: Any, seen: set[int]) -> Iterator[bytes]:
    """Tensors, arrays, numbers and texts of an object, and of the networks and other objects that it holds.

    seen: ids of objects that were entered already, which may hold each other
    """
    import torch

    if isinstance(value, torch.Tensor):
        yield name.encode() + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()  # also bfloat16
    elif isinstance(value, np.ndarray):
        yield name.encode() + np.ascontiguousarray(value).tobytes()
    elif value is None or isinstance(value, bool | int | float | str):
        yield f"{name}={value!r}".encode()
    elif id(value) not in seen and not isinstance(value, type):
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            held = {key: each for key, each in vars(value).items() if not key.startswith("_") and key != "training"}
            held |= value.state_dict()
        elif isinstance(value, Mapping):
            held = {str(key): each for key, each in value.items()}
        elif isinstance(value, list | tuple):
            held = {str(i): each for i, each in enumerate(value)}
        else:
            held = getattr(value, "__dict__", {})
        for key, each in sorted(held.items()):
            yield from contents(f"{name}.{key}", each, seen)


@dataclass(frozen=True)
class Measurements:
    """Of N images: `values`, (N, ...) as the operator measures them. Change them in place: NaN is "not measured"."""

    values: np.ndarray
    items: Sequence[Given]  # their y are rows of `values`
    seed: int
    kind: str  # of data.kind: images, of which the truth is known, or measurement
    root: str | None  # data.root of the items, None: as configured

    @property
    def truth(self) -> np.ndarray | None:
        """(N, 3, H, W) in [0, 1]; None where it is not known."""
        truths = [item.truth for item in self.items if item.truth is not None]
        return np.stack(truths) / 2 + 0.5 if truths else None

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<Measurements {self.values.shape}, {'with' if self.kind == 'images' else 'without'} a truth, seed {self.seed}>"


@dataclass(frozen=True, kw_only=True)
class Array(Measurement):
    """A measurement, or with `pixels` an image (3, H, W) in [0, 1], as an array; path: what it is called."""

    raw: np.ndarray

    def read(self) -> Reading:
        return reading(self.raw, self.path, self.convention)

    def pixels(self, resolution: int) -> np.ndarray:
        return fitted(self.raw.astype(np.float32), resolution)

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.raw).tobytes()).hexdigest()


def pictures(images: Any, start_id: int = 0) -> list[Array]:
    """Images (N, 3, H, W) in [0, 1], an array, a tensor, or a list of such, as items. Raises InputError."""
    items = [Array(i, Path(f"{i:05d}"), raw=as_array(image)) for i, image in enumerate(images, start_id)]
    if not items:
        raise InputError("images: holds none; give an array (N, 3, H, W), or paths")
    for i, x in enumerate(item.raw for item in items):
        if x.ndim != 3 or x.shape[0] != 3 or 0 in x.shape or x.dtype.kind not in "fiu" or not (x.min() >= 0 and x.max() <= 1):
            range_ = f" from {x.min():g} to {x.max():g}" if x.size and x.dtype.kind in "fiu" else ""
            raise InputError(f"images[{i}]: has shape {x.shape} and {x.dtype}{range_}; give (3, H, W) in [0, 1], or paths")
    return items


class Model:
    """What `load` gives. `settings`: the checked configuration; `parts`: device, prior, operator, sampler."""

    def __init__(self, overrides: Sequence[str], prior: "LatentPrior | None", operator: "Operator | None") -> None:
        from utils.running.build import build, prepared

        self._overrides, self._operator = overrides, operator
        self._cfg: DictConfig = compose(overrides)
        if prior is not None:
            self._cfg.model = {**described(prior), "path": IN_MEMORY, "resolution": prior.resolution}
        if operator is not None and self._cfg.task_group in self._cfg.task:  # else the check says so
            self._cfg.task[self._cfg.task_group].operator = {**described(operator), "sigma": float(operator.sigma)}
        self.settings = self.settings_with({})
        neutral = {"workers": (1, "auto"), "shard": ("0/1",)}
        for key, remedy in OF_A_RUN.items():
            if (value := getattr(self.settings, key)) and value not in neutral.get(key, ()):
                said = ",".join(value) if isinstance(value, dict) else value
                raise InputError(f"{key}={said}: acts in posterior_sample.py alone; {remedy}")
        for note in self.settings.composition.notes:
            console.log.warning("%s", note)
        ready = prior
        if prior is not None:
            if self.settings.precision == "bf16" or self.settings.gradient_checkpointing:
                prior = copy.deepcopy(prior)  # the caller's own stays as it is
            ready = prepared(prior, self.settings, prior.device)
        with devices.out_of_memory_in_one_line():
            self.parts = build(self.settings, prior=ready, operator=operator)

    def settings_with(self, values: Mapping[str, Any]) -> Settings:
        """The settings with other values of some keys; None: as it is. Raises InputError."""
        cfg = self._cfg.copy()
        for key, value in values.items():
            if value is not None:
                OmegaConf.update(cfg, key, value)
        return check(cfg, self._overrides)

    def settings_of(self, y: Measurements, folder: Path | None = None) -> Settings:
        """Those of a run on some measurements, written into a folder."""
        values = {"seed": y.seed, "data.kind": y.kind, "data.root": y.root}
        values |= {"data.start_id": y.items[0].id, "data.end_id": y.items[-1].id + 1}
        return self.settings_with(values if folder is None else values | {"save_dir": str(folder.parent), "name": folder.name})

    def _under(self, seed: int) -> None:
        """Let the parts be those of a seed."""
        from utils.running.build import build

        if seed != self.parts.noise.seed:
            settings = self.settings_with({"seed": seed})
            self.parts = build(settings, tried=False, prior=self.parts.prior, operator=self._operator)

    def measure(self, images: Any = None, seed: int | None = None, start_id: int = 0) -> Measurements:
        """The measurements of some images, under noise of the seed and their numbers. Raises InputError.

        images: (N, 3, H, W) array or tensor in [0, 1], or paths of files, made as large as the model's pictures; None: the
        images (or, with data="measurement", the files) that the configuration names
        seed: None as configured; start_id: number of the first of the images; of those that are configured, where to begin
        """
        start_id, seed = whole("start_id", start_id), None if seed is None else whole("seed", seed)
        if start_id < 0:
            raise InputError(f"start_id={start_id}: give a number from 0 on")
        if images is None:
            settings = self.settings_with({"seed": seed, "data.start_id": start_id or None})
            if settings.data.root == IN_MEMORY:
                raise InputError("images: none are given, and no data= names a set of them; give an array or paths")
            return self._measured(select_images(settings), settings, None)
        paths = [images] if isinstance(images, str | Path) else images
        if not hasattr(paths, "__len__"):
            raise InputError(f"images: have the type {type(images).__name__}; give an array (N, 3, H, W), or paths")
        if not (len(paths) and all(isinstance(path, str | Path) for path in paths)):
            settings = self.settings_with({"seed": seed, "data.kind": "images"})
            return self._measured(pictures(images, start_id), settings, IN_MEMORY)
        settings = self.settings_with({"seed": seed})
        files = [found if (found := find(path)).exists() else Path(path) for path in paths]  # of a missing one: as it was given
        root = os.path.commonpath([file.resolve().parent for file in files])
        items = items_of(settings, files, start_id)
        return self._measured(items, settings, None if Path(root) == find(settings.data.root).resolve() else root)

    def _of_others(self, y: Any) -> Measurements:
        """An array or tensor of measurements, as the block `data` means its numbers."""
        values, settings = as_array(y), self.settings_with({"data.kind": "measurement"})
        if not values.size or values.ndim < 2:
            raise InputError(f"y: has shape {values.shape}; give measurements (N, ...)")
        convention = replace(Convention.of(settings.data), kept_background=settings.kept_background)
        if convention.quantity == "counts" and convention.gain is None:
            raise InputError("data.quantity=counts: of an array the gain must be told; give data.gain, or save y to a file")
        if convention.quantity == "counts" and settings.fidelity.photons is None:
            raise InputError(
                "data.quantity=counts: the likelihood follows from a file, not from an array; save y and load "
                "data=measurement data.root=FILE, or set fidelity.photons, fidelity.poisson and fidelity.gaussian too"
            )
        items = [Array(i, Path(f"y[{i}]"), convention, raw=raw) for i, raw in enumerate(values)]
        try:
            return self._measured(items, settings, IN_MEMORY)
        except Lost as error:
            raise InputError(str(error).replace(PUT_BACK, "give real numbers that float32 can hold")) from None

    def _measured(self, items: Sequence[Any], settings: Settings, root: str | None) -> Measurements:
        """Simulated of images, read of measurements; items: of utils.data.TestItem; root: their data.root."""
        import torch

        from utils.running.build import measured
        from utils.running.checking import check_measurements

        self._under(settings.seed)
        if settings.data.kind == "measurement":
            check_measurements(self.parts, items, settings.task_group)
        ys, truths = zip(*(measured(self.parts, settings, item) for item in items))
        values = torch.stack(ys).cpu().numpy()  # what is given are its rows, so that changing them changes what is sampled
        measurements = [
            Given(item.id, item.path, y, None if truth is None else truth.numpy(), item.sha256)
            for item, y, truth in zip(items, values, truths)
        ]
        return Measurements(values, measurements, settings.seed, settings.data.kind, root)

    def sample(self, y: Any, progress: bool = True, on_step: "Callable[[StepInfo], None] | None" = None) -> Result:
        """The particles of each measurement. Raises InputError.

        y: what `measure` gives, or an array or tensor (N, ...) of measurements of others, without a truth
        progress: whether a bar is shown; on_step: is told of each annealing step (utils.sampling.outcome.StepInfo)
        """
        from utils.running.sampling import Turn, report, sample_with
        from utils.sampling.pictures import enlarged

        if on_step is not None and not callable(on_step):
            raise InputError(f"on_step={on_step}: cannot be called; give a function of one argument")
        y = y if isinstance(y, Measurements) else self._of_others(y)
        settings, image_results = self.settings_of(y), list[ImageResult]()
        self._under(settings.seed)
        stamp = RunFolder(settings.folder, settings.composition.fingerprint, settings.composition.about)
        stamp.digests = settings.digests()

        def keep(record: dict[str, Any], arrays: dict[str, np.ndarray], device: dict[str, Any], result: "SampleResult") -> None:
            x = result.image[result.particles.of_image(record["image_id"]).to(result.image.device)]
            x = enlarged(x.float().cpu(), self.parts.side)  # (P, 3, H, W) of those that are there at the end
            image_results.append(ImageResult(clean(stamp.stamped(record, device)), arrays, np.clip(x.numpy() / 2 + 0.5, 0, 1)))
            report(record, settings.data.kind == "measurement")

        with devices.out_of_memory_in_one_line():
            sample_with(self.parts, settings, y.items, Turn(y.items, progress=progress), keep, on_step)
        return Result(self, y, image_results)
