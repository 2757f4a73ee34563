"""The folder of one run: opened, guarded against other configs, and filled."""
import logging
import shutil
from pathlib import Path

import numpy as np
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

from utils import results
from utils.config import InputError, differences, fingerprint, identity

log = logging.getLogger("latentdaps")


class RunFolder:
    """<save_dir>/<name>/ with config.yaml, .hydra/, records/, samples/, metrics.json, eval.md and the figures."""

    def __init__(self, path, run_fingerprint):
        self.path, self.fingerprint = Path(path), run_fingerprint

    @classmethod
    def open(cls, cfg, settings):
        """Create the folder, or continue it. Refuses one that holds something else, before touching anything."""
        path = settings.folder
        if path.exists() and not settings.resume:
            _keep_aside(path)
        elif path.exists():
            _refuse_foreign(path, cfg)
        try:
            (path / "records").mkdir(parents=True, exist_ok=True)
            (path / "samples").mkdir(exist_ok=True)
            _write_config(path, cfg)
        except OSError as error:
            raise InputError(f"save_dir={settings.save_dir}: cannot write to {path} ({error.strerror}); "
                             "choose another save_dir") from None
        return cls(path, fingerprint(cfg))

    def is_done(self, image):
        """Whether this image has a readable record of this config. A damaged one is set aside and counts as not done."""
        path = results.record_path(self.path, image.id)
        if not path.exists():
            return False
        try:
            record, _ = results.read_record(path)
        except results.RecordError as error:
            aside = path.with_suffix(".damaged")
            shutil.move(path, aside)
            log.warning("%s; kept as %s, its image is sampled again", error, aside.name)
            return False
        if record["fingerprint"] != self.fingerprint:
            raise InputError(f"record {path} belongs to another configuration; choose another name= or resume=false")
        if record["sha256"] != image.sha256():
            raise InputError(f"record {path} was made from another image than {image.path}; "
                             "choose another name= or resume=false")
        return True

    def write(self, record, arrays):
        """One image's record and its samples as PNG."""
        results.write_record(self.path, {**record, "fingerprint": self.fingerprint}, arrays)
        for index, pixels in zip(record["particles"], arrays["images"]):
            Image.fromarray(pixels).save(self.path / "samples" / f"{record['image_id']:05d}_p{index}.png")

    def aggregate(self, metadata):
        """Write metrics.json and eval.md from all records of the folder; returns the metrics, None without records."""
        records = results.read_records(self.path)
        if not records:
            return None
        metrics = results.aggregate(records, metadata)
        results.write_atomically(self.path / "metrics.json", lambda file: file.write(results.to_json(metrics)))
        results.write_atomically(self.path / "eval.md", lambda file: file.write(results.eval_markdown(metrics).encode()))
        return metrics


def _keep_aside(path):
    number = next(i for i in range(1, 10_000) if not path.with_name(f"{path.name}.{i}").exists())
    aside = path.with_name(f"{path.name}.{number}")
    path.rename(aside)
    log.warning("resume=false: the old result is kept as %s", aside)


def _refuse_foreign(path, cfg):
    if not path.is_dir():
        raise InputError(f"name={path.name}: {path} is not a folder; choose another name=")
    saved = path / "config.yaml"
    if not saved.exists():
        if any(path.iterdir()) and any(entry.name not in ("records", "samples", ".hydra") for entry in path.iterdir()):
            raise InputError(f"name={path.name}: {path} holds something other than a run; choose another name=")
        return
    try:
        old = identity(OmegaConf.load(saved))
    except Exception as error:  # a config of an older version or a damaged file
        raise InputError(f"name={path.name}: {saved} cannot be read ({type(error).__name__}); choose another name=") from None
    changed = differences(old, identity(cfg))
    if changed and any((path / "records").glob("*.npz")):  # a run that ended before its first record holds nothing
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        raise InputError(f"name={path.name}: {path} holds a result of another configuration: {'; '.join(changed[:3])}{more}; "
                         "choose another name=, or resume=false to start anew and keep the old result aside")


def _write_config(path, cfg):
    def put(target, text):
        results.write_atomically(target, lambda file: file.write(text.encode()))

    put(path / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    if not HydraConfig.initialized():
        return
    hydra_cfg = HydraConfig.get()
    (path / ".hydra").mkdir(exist_ok=True)
    put(path / ".hydra" / "config.yaml", OmegaConf.to_yaml(cfg))
    put(path / ".hydra" / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_cfg})))
    put(path / ".hydra" / "overrides.yaml", yaml.safe_dump(list(hydra_cfg.overrides.task)))


def to_pixels(x):
    """Images (P, 3, H, W) in [-1, 1] -> (P, H, W, 3) uint8 array."""
    array = np.nan_to_num(x.detach().float().cpu().numpy(), nan=-1.0, posinf=1.0, neginf=-1.0)
    return np.round((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
