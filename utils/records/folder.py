"""The folder of one run: opened, guarded against other configs, and filled."""

import errno
import io
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from PIL import Image

from utils.config.fingerprint import differences, identity
from utils.config.settings import Settings
from utils.data import TestItem
from utils.digests import Digests, other_content
from utils.errors import InputError
from utils.files import PARTIAL, write_atomically
from utils.paths import unused
from utils.plain_files import Unreadable, read_json, read_yaml
from utils.records.aggregate import aggregate
from utils.records.claim import claim_path, claimed, unclaimed
from utils.records.files import RecordError, read_record, record_path, record_paths, to_json, write_record
from utils.records.kept import KEPT, kept_path
from utils.records.progress import SUFFIX
from utils.records.record import SCHEMA
from utils.records.summary import eval_markdown

log = logging.getLogger("latentdaps")

SEEN = "images.json"
CLAIMED = 1000  # images that a claim names
MOST_NAMES = 2**26  # bytes of that list

Item = TypeVar("Item", bound=TestItem)


class Rank(Protocol):
    """utils.running.ranks.Rank, as far as a folder needs it."""

    @property
    def first(self) -> bool: ...

    def announce(self, event: str) -> None: ...

    def wait_for_first(self, event: str) -> None: ...


class RunFolder:
    """<save_dir>/<name>/ with config.yaml, .hydra/, images.json, records/, samples/, logs, metrics.json, eval.md, figures.

    Any number of processes may work in it: each writes its own images' files, each in one step.
    """

    def __init__(self, path: str | Path, fingerprint: str | None, about: dict | None = None) -> None:
        """about: what every record of this run says about it, see `add`."""
        self.path, self.fingerprint, self.about = Path(path), fingerprint, about
        self.digests: Digests = {}
        self.just_read: dict[int, dict[str, Any]] | None = None  # its records as it was opened; reading them takes seconds

    @classmethod
    @contextmanager
    def open(cls, settings: Settings, rank: Rank, images: Sequence[TestItem] = ()) -> Iterator["RunFolder"]:
        """Create the folder, or continue it, and hold it. Refuses one that holds something else, before touching anything.

        images: that it samples. Of several ranks the first one does it, and the others wait for it.
        """
        composition = settings.composition
        folder = cls(settings.folder, composition.fingerprint, composition.about)
        folder.digests = settings.digests()
        content = folder.digests | {f"image {image.id}": image.sha256[:16] for image in images[:CLAIMED]}
        with ExitStack() as held:
            if not rank.first:
                rank.wait_for_first("folder open")
                with folder.writing("choose another save_dir"):
                    held.enter_context(claimed(folder.path, composition.fingerprint, content=content))
                yield folder
                return
            with folder.writing("choose another save_dir"):
                if _is_run(folder.path) and not settings.resume:
                    _keep_aside(folder.path)
                _refuse_foreign(folder.path)
                look_over = partial(folder.look_over, composition.identity)
                held.enter_context(claimed(folder.path, composition.fingerprint, look_over, content))
                folder.prepare()
                folder.just_read = folder.records(foreign="refuse")
                for name, text in composition.documents.items():
                    (folder.path / name).parent.mkdir(exist_ok=True)
                    write_atomically(folder.path / name, text)
            rank.announce("folder open")
            yield folder

    def prepare(self) -> None:
        """Create what is missing."""
        for name in ("records", "samples"):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def look_over(self, identity_of_run: dict[str, Any]) -> None:
        """Refuse a result of another configuration, then remove what killed processes left half written.

        Only while nobody else is at work here (utils/records/claim.py): what is half written then stays so.
        """
        _refuse_other(self.path, identity_of_run)
        self.remove_partial()
        for gone in self.path.glob(f"*{SUFFIX}"):
            gone.unlink()

    def remove_partial(self) -> None:
        """Remove half-written files; only while nobody else is at work here."""
        for place in (".", ".hydra", "records", "samples", "arrays"):
            for leftover in (self.path / place).glob(f".*{PARTIAL}"):
                leftover.unlink()

    @contextmanager
    def writing(self, remedy: str = "free some space; what is done is kept, and the same command continues") -> Iterator[None]:
        """Turns a full disk, missing rights and the like into one line."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(
                f"save_dir={self.path.parent}: cannot write to {error.filename or self.path} ({reason}); {remedy}"
            ) from None

    def log_path(self, settings: Settings) -> Path:
        """One log per shard."""
        return self.path / log_name(*settings.shard_of)

    def made_of(self, digests: Digests) -> None:
        """Renew what the run is made of, once it is loaded: weights may have come, or been converted, only then.

        Raises InputError if a record was made of something else.
        """
        if digests != self.digests:
            self.digests = digests
            self.records(foreign="refuse", wanted=())

    def records(
        self, foreign: Literal["leave out", "refuse"] = "leave out", wanted: Collection[str] | None = None
    ) -> dict[int, dict[str, Any]]:
        """{image id: record} of all readable records of this configuration, sorted by id.

        A damaged file is set aside, and its image counts as not done; wanted: arrays that are looked at for that, None all.
        foreign: a record of another configuration, or of other weights or modules, is left out with a warning, or refused with
        an InputError.
        """
        records: dict[int, dict[str, Any]] = {}  # record_paths are sorted by id
        digests = dict(self.digests)
        for path in record_paths(self.path):
            record = _readable(path, wanted)
            if record is None:
                continue
            foreign_by = _foreign_by(record, self.fingerprint, digests)
            if foreign_by is None:
                records[record["image_id"]] = record
                digests |= record.get("digests", {})
            elif foreign == "refuse":
                raise InputError(f"record {path} {foreign_by}; choose another name= or resume=false")
            else:
                log.warning("record %s %s and is left out", path, foreign_by)
        return records

    def pending(self, images: Sequence[Item], names: Sequence[str] | None = None) -> list[Item]:
        """Those of `images` that have no record yet. Raises InputError if a record was made from another image.

        names: file names of the whole set by id, to find images that were added or removed outside this selection.
        """
        done = self.records(foreign="refuse", wanted=()) if self.just_read is None else self.just_read
        self.just_read = None
        for image in images:
            if image.id in done and done[image.id]["sha256"] != image.sha256:
                raise InputError(
                    f"record {record_path(self.path, image.id)} was made from another image than "
                    f"{image.path}; choose another name= or resume=false"
                )
        if names is not None:
            self._check_names(done, names)
        return [image for image in images if image.id not in done]

    def remember(self, names: Sequence[str], end: int) -> None:
        """Note which files the images of a selection have. names: of the whole set; end: of the selection, exclusive.

        Raises InputError if one that an earlier selection had is no longer there: what is left would seem to be all.
        """
        remembered = names_seen(self.path)
        lost = list((Counter(remembered) - Counter(names)).elements())
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise InputError(
                f"data.root: {lost[0]}{more} of the run {self.path} is no longer there; put it back, or choose another name= "
                "or resume=false"
            )
        if end > len(remembered):
            with self.writing():
                write_atomically(self.path / SEEN, lambda file: file.write(to_json(list(names[:end]))))

    def _check_names(self, done: dict[int, dict[str, Any]], names: Sequence[str]) -> None:
        """Raises InputError if a record was made from another file than has its number now."""
        for number, record in done.items():
            if number >= len(names) or names[number] != record["file"]:
                now = f"{number} is {names[number]}" if number < len(names) else f"there is no {number}"
                raise InputError(
                    f"record {record_path(self.path, number)} was made from {record['file']}, and now {now}: an image was "
                    "added or removed; put the set back as it was, or choose another name= or resume=false"
                )

    def write(self, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """One image's samples as PNG, then its record: an image with a record is complete.

        Records that were stripped of their arrays have no samples. Raises InputError instead of replacing a record of
        another configuration.
        """
        path = record_path(self.path, record["image_id"])
        before = _readable(path, wanted=()) if path.exists() else None
        if before is not None and (foreign_by := _foreign_by(before, record["fingerprint"], record.get("digests", {}))):
            raise InputError(f"record {path} {foreign_by} and is kept; choose another name=")
        with self.writing():
            for index, pixels in zip(record["survivors"], arrays.get("images", ())):
                png = io.BytesIO()
                Image.fromarray(pixels).save(png, format="PNG")
                write_atomically(self.path / "samples" / f"{record['image_id']:05d}_p{index}.png", png.getbuffer())
            write_record(self.path, record, arrays)

    def add(self, record: dict[str, Any], arrays: dict[str, np.ndarray], device: dict[str, Any]) -> None:
        """`write` a new record of this run with its stamp."""
        self.write(self.stamped(record, device), arrays)

    def stamped(self, record: dict[str, Any], device: dict[str, Any]) -> dict[str, Any]:
        """A record that says of which run it is: schema, fingerprint, digests, the run, and its device."""
        stamp = {"schema": SCHEMA, "fingerprint": self.fingerprint, "digests": self.digests, "run": self.about}
        return {**record, **stamp, "device": device}

    def aggregate(self) -> dict[str, Any] | None:
        """Write metrics.json and eval.md from all records of the folder; returns the metrics, None without records."""
        metrics: dict[str, Any] | None = None
        seen: list[Path] = []
        # shards may end together: the last one to write must have seen the records of all
        while (present := record_paths(self.path)) != seen:
            seen = present
            records = self.records(wanted=())
            if not records:
                continue
            metrics = aggregate(list(records.values()), self.path.name).content()
            with self.writing():
                for name, content in (("metrics.json", to_json(metrics)), ("eval.md", eval_markdown(metrics).encode())):
                    write_atomically(self.path / name, content)
        return metrics


def log_name(k: int, n: int) -> str:
    """Of the log of shard k/n."""
    return "run.log" if n == 1 else f"run_shard-{k}-of-{n}.log"


def _foreign_by(record: dict[str, Any], fingerprint: str | None, digests: Digests) -> str | None:
    """What tells a record from those of a run of that fingerprint and made of `digests`; None for one of them."""
    if record["fingerprint"] != fingerprint:
        return "belongs to another configuration"
    other = other_content(record.get("digests", {}), digests)
    return f"was made with {other}" if other else None


def names_seen(folder: Path) -> list[str]:
    """File names of the set as far as a run has selected it, by id; [] where that is not known."""
    try:
        return read_json(folder / SEEN, list[str], MOST_NAMES)
    except (OSError, Unreadable):
        return []


def _readable(path: Path, wanted: Collection[str] | None) -> dict[str, Any] | None:
    """The record at `path`; None for a damaged one, which is set aside. wanted: arrays that are looked at, too."""
    try:
        return read_record(path, wanted)[0]
    except RecordError as error:
        _set_aside(path, error)
    except FileNotFoundError:  # another shard has just set it aside
        pass
    except OSError as error:
        remedy = "free some memory" if error.errno == errno.ENOMEM else "make it readable or remove it"
        raise InputError(f"record {path} cannot be read ({error.strerror}); {remedy}") from None
    return None


def _set_aside(path: Path, error: RecordError) -> None:
    aside = unused(path.with_name(f"{path.name}.damaged"))
    try:
        path.rename(aside)
    except FileNotFoundError:  # another shard was faster
        return
    log.warning("%s; kept as %s, its image is sampled again", error, aside.name)


def _keep_aside(path: Path) -> None:
    aside = unused(path)
    with unclaimed(path):
        path.rename(aside)
    log.warning("resume=false: the old result is kept as %s", aside)


def _is_run(path: Path) -> bool:
    """Whether this program made the folder: by its lock or, where there is none, by its config or a record.

    DAPS writes a config.yaml with many of the same keys, but none of `shard` and `resume`.
    """
    if claim_path(path).is_file():
        return True
    try:
        config = read_yaml(path / "config.yaml")
    except (OSError, Unreadable):
        config = {}
    return {"task_group", "shard", "resume"} <= config.keys() or any(map(_is_record, record_paths(path)))


def _is_record(path: Path) -> bool:
    try:
        read_record(path, wanted=())
    except (RecordError, OSError):
        return False
    return True


def _refuse_foreign(path: Path) -> None:
    """Raises InputError for what is neither a run that can go on nor free: missing, or without any file."""
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"name={path.name}: {path} is not a folder; choose another name=")
    if kept_path(path).exists():
        raise InputError(f"name={path.name}: {path} holds a run kept in {KEPT}, which cannot go on; choose another name=")
    if not _is_run(path) and any(not entry.is_dir() and not entry.name.endswith(PARTIAL) for entry in path.rglob("*")):
        raise InputError(f"name={path.name}: {path} holds something other than a run; choose another name=")


def _refuse_other(path: Path, identity_of_run: dict[str, Any]) -> None:
    """By its config; where that is lost, every record tells by its fingerprint (`RunFolder.records`)."""
    saved = path / "config.yaml"
    if not saved.exists():
        return
    try:
        changed = differences(identity(read_yaml(saved)), identity_of_run)
    except Exception as error:  # a config of an older version or a damaged file
        if record_paths(path):
            return
        reason = error if isinstance(error, Unreadable) else type(error).__name__
        raise InputError(f"name={path.name}: {saved} cannot be read ({reason}); choose another name=") from None
    if changed and record_paths(path):  # a run that ended before its first record holds nothing
        more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
        raise InputError(
            f"name={path.name}: {path} holds a result of another configuration: {'; '.join(changed[:3])}{more}; "
            "choose another name=, or resume=false to start anew and keep the old result aside"
        )
