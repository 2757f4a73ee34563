"""A loaded configuration that measures and samples."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from latentdaps.inputs import IN_MEMORY, Array, Measurements, measurements, pictures
from latentdaps.result import Kept, Result
from utils import device as devices
from utils.config.check import check
from utils.config.settings import Settings
from utils.data import items_of, loaded, select_images
from utils.digests import Digests
from utils.errors import InputError
from utils.measurements import Convention
from utils.paths import find
from utils.records.files import clean
from utils.records.folder import RunFolder
from utils.running import console

if TYPE_CHECKING:
    from operators.base import Operator
    from utils.priors.base import LatentPrior
    from utils.sampling.outcome import StepInfo


class Model:
    """What `load` gives. `settings`: the checked configuration; `parts`: device, prior, operator, sampler."""

    def __init__(
        self,
        cfg: DictConfig,
        overrides: Sequence[str],
        prior: "LatentPrior | None",
        operator: "Operator | None",
        digests: Digests,
    ) -> None:
        """digests: of the two objects, where they are given."""
        from utils.running.build import build, prepared

        self._cfg, self._overrides, self._operator, self._digests = cfg, overrides, operator, digests
        self.settings = self._settings({})
        for note in self.settings.composition.notes:
            console.log.warning("%s", note)
        if prior is not None:
            prior = prepared(prior, self.settings, prior.device)
        with devices.out_of_memory_in_one_line():
            self.parts = build(self.settings, prior=prior, operator=operator)

    def _settings(self, values: Mapping[str, Any]) -> Settings:
        """The settings with other values of some keys; None: as it is."""
        cfg = self._cfg.copy()
        for key, value in values.items():
            if value is not None:
                OmegaConf.update(cfg, key, value)
        return check(cfg, self._overrides)

    def _under(self, settings: Settings) -> None:
        """Let the parts be those of the settings' seed."""
        from utils.running.build import build

        if settings.seed != self.parts.noise.seed:
            self.parts = build(settings, tried=False, prior=self.parts.prior, operator=self._operator)

    def measure(self, images: Any = None, seed: int | None = None, start_id: int = 0) -> Measurements:
        """The measurements of some images, under noise of the seed and their numbers. Raises InputError.

        images: (N, 3, H, W) array or tensor in [0, 1], or paths of files, made as large as the model's pictures; None: the
        images (or, with data="measurement", the files) that the configuration names
        seed: None as configured; start_id: number of the first of the images
        """
        items: Sequence[Any]  # of utils.data.TestItem
        if images is None:
            settings, root = self._settings({"seed": seed}), None
            if settings.data.root == IN_MEMORY:
                raise InputError("images: none are given, and no data= names a set of them; give an array or paths")
            items = select_images(settings)
        elif isinstance(images, str | Path) or (len(images) and all(isinstance(each, str | Path) for each in images)):
            paths = [Path(path) for path in ([images] if isinstance(images, str | Path) else images)]
            settings = self._settings({"seed": seed})
            items = items_of(settings, list(enumerate(paths, start_id)))
            folder = os.path.commonpath([path.resolve().parent for path in paths])
            root = None if Path(folder) == find(settings.data.root).resolve() else folder
        else:
            settings, root = self._settings({"seed": seed, "data.kind": "images"}), IN_MEMORY
            items = pictures(images, start_id)
        return self._measured(items, settings, root)

    def _measured(self, items: Sequence[Any], settings: Settings, root: str | None) -> Measurements:
        """Simulated of images, read of measurements; root: data.root of the items."""
        import torch

        from utils.running.build import check_measurements, measure

        self._under(settings)
        if settings.data.kind == "measurement":
            check_measurements(self.parts, items)
            return measurements([(item, loaded(item, item.values), None) for item in items], settings, root)
        truths = [loaded(item, partial(item.pixels, self.parts.side)) for item in items]
        ys = [measure(self.parts, torch.from_numpy(x), item.id)[0].cpu().numpy() for x, item in zip(truths, items)]
        return measurements(list(zip(items, ys, truths)), settings, root)

    def _of_others(self, y: Any) -> Measurements:
        """An array or tensor of measurements, as the block `data` means its numbers."""
        values = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
        if not values.size or values.ndim < 2:
            raise InputError(f"y: has shape {values.shape}; give measurements (N, ...)")
        settings = self._settings({"data.kind": "measurement"})
        convention = Convention.of(settings.data)
        items = [Array(i, Path(f"y[{i}]"), convention, raw=raw) for i, raw in enumerate(values)]
        return self._measured(items, settings, IN_MEMORY)

    def sample(self, y: Any, progress: bool = True, on_step: "Callable[[StepInfo], None] | None" = None) -> Result:
        """The particles of each measurement. Raises InputError.

        y: what `measure` gives, or an array or tensor (N, ...) of measurements of others, without a truth
        progress: whether a bar is shown; on_step: is told of each annealing step (utils.sampling.outcome.StepInfo)
        """
        from utils.running.sampling import Alone, Finished, report, sample_with
        from utils.sampling.pictures import enlarged

        y = y if isinstance(y, Measurements) else self._of_others(y)
        first, last = y.items[0].id, y.items[-1].id
        of_y = {"seed": y.seed, "data.kind": y.kind, "data.root": y.root, "data.start_id": first, "data.end_id": last + 1}

        def settings_of(folder: Path | None) -> Settings:
            return self._settings(of_y if folder is None else {**of_y, "save_dir": str(folder.parent), "name": folder.name})

        settings = settings_of(None)
        self._under(settings)
        side = self.parts.side
        stamp = RunFolder(settings.folder, settings.composition.fingerprint, settings.composition.about)
        stamp.digests = {**settings.digests(), **self._digests}
        kept: list[Kept] = []

        def keep(finished: Finished) -> None:
            record, arrays, device, result = finished
            x = result.image[result.particles.of_image(record["image_id"]).to(result.image.device)]
            x = enlarged(x.float().cpu(), side)  # (P, 3, H, W) of those that are there at the end
            kept.append(Kept(clean(stamp.stamped(record, device)), arrays, np.clip(x.numpy() / 2 + 0.5, 0, 1)))
            report(record)

        with devices.out_of_memory_in_one_line():
            sample_with(self.parts, settings, y.items, Alone(y.items, progress), keep, on_step)
        return Result(settings_of, self.parts, y, kept, stamp.digests)
