"""What the command line says, before and beside the composed config."""

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NoReturn, get_args

from hydra._internal.utils import get_args_parser  # Hydra's flags stand nowhere else, and @hydra.main reads them with it
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException

from utils.config.fingerprint import NOT_IN_FINGERPRINT
from utils.config.renamed import ROWS
from utils.config.section import Section
from utils.config.sections import TaskGroup
from utils.config.settings import Settings
from utils.errors import InputError, short
from utils.paths import PROJECT
from utils.plain_files import refuse_deep

NEEDED = ("data", "model", "task", "sampler")  # groups of which a run needs exactly one configuration
DEFAULTS = (*NEEDED, "experiment", "callbacks")  # groups in the defaults list


def check_command_line(arguments: Sequence[str]) -> list[str]:
    """The overrides among the arguments of a program of @hydra.main. Raises InputError for what Hydra refuses in many
    lines, and for what DAPS and earlier code call otherwise."""
    for argument in arguments:
        refuse_deep(argument)
    parser = get_args_parser()
    parser.error = _flags_in_one_line  # type: ignore[method-assign]  # Hydra makes the parser, so it cannot be a subclass
    args, unknown = parser.parse_known_args(arguments)
    check_renamed([*args.overrides, *unknown])
    if unknown:
        text = unknown[0]
        raise InputError(
            f"{short(text)}: there is no such flag; keys are written without dashes, and --hydra-help lists the flags"
            if text.startswith("-")
            else f"{short(text)}: stands apart from the other key=value; write the flags before or after all of them"
        )
    if args.resolve and not args.cfg:
        raise InputError("--resolve: goes with --cfg; write --cfg job --resolve")
    if sum(map(bool, (args.run, args.multirun, args.cfg, args.info, args.shell_completion))) > 1:
        raise InputError(f"{' '.join(arguments)}: one of --run, --multirun, --cfg, --info and --shell-completion at a time")
    check_group_choices(args.overrides)
    return args.overrides


def numbers_as_text(override: str) -> str:
    """An override, its numbers quoted where the key takes text: Hydra reads name=2024_01_15 as 20240115 and 1.10 as 1.1."""
    key, _, text = override.partition("=")
    if _kinds_of(key.lstrip("+")) - {type(None)} != {str}:
        return override
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:  # reported by utils/config/compose.py
        return override
    values, texts = (value.list, text.split(",")) if isinstance(value, ChoiceSweep) else ([value], [text])
    if len(values) != len(texts):  # choices with commas of their own
        return override
    return f"{key}=" + ",".join(f'"{t.strip()}"' if isinstance(v, (int, float)) else t for v, t in zip(values, texts))


def takes_text(key: str) -> bool:
    """Whether the value of a key may be text; of a key that the program does not know it may."""
    kinds = _kinds_of(key)
    return not kinds or str in kinds or Any in kinds


def _kinds_of(key: str) -> set[Any]:
    """The types that a dotted key's value may have; none for a key that the program does not know."""
    annotations = _keys(Settings)
    return set(_types_in(annotations[key])) if key in annotations else set()


def _keys(section: type[Section], prefix: str = "") -> dict[str, Any]:
    """{dotted key: its annotation} of a section and those in it."""
    annotations: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        annotations[key] = field.annotation
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            annotations |= _keys(field.annotation, f"{key}.")
    return annotations


def _types_in(annotation: Any) -> Iterator[Any]:
    """Those that a union offers, without what pydantic notes beside them; a Literal's are those of its values."""
    if isinstance(annotation, str):
        yield str
    elif isinstance(annotation, type) or not (inner := get_args(annotation)):
        yield annotation
    else:
        for part in inner[:1] if hasattr(annotation, "__metadata__") else inner:
            yield from _types_in(part)


def _flags_in_one_line(message: str) -> NoReturn:
    raise InputError(f"{message}; --hydra-help lists the flags")


def check_renamed(overrides: Sequence[str]) -> None:
    """Refuses what DAPS and earlier code call otherwise, all of it in one line with today's words. Raises InputError."""
    task_group = next((text.partition("=")[2] for text in overrides if text.startswith("task_group=")), "TASK_GROUP")
    free = "sampler." if _of_another_algorithm(overrides) else ()
    asked = [text for text in overrides if not (free and text.lstrip("+~").startswith(free))]
    renamed = [(text, *today) for text in asked if (today := _today(text, task_group)) is not None]
    if not renamed:
        return
    if len(renamed) == 1:
        [(text, write, why)] = renamed
        why = why or _renamed_to(write)
        raise InputError(f"{short(text)}: {why}; {f'write {write}' if write else 'leave it out'}")
    written = [write for _, write, _ in renamed if write]
    left_out = [short(text) for text, write, _ in renamed if not write]
    parts = [f"{' '.join(short(text) for text, _, _ in renamed)}: this program writes them otherwise"]
    parts += [f"write {' '.join(written)}"] if written else []
    parts += [f"leave out {' '.join(left_out)}"] if left_out else []
    raise InputError("; ".join([*parts, *dict.fromkeys(why for _, _, why in renamed if why)]))


def _of_another_algorithm(overrides: Sequence[str]) -> bool:
    """Whether `sampler=` names another algorithm than LatentDAPS, shipped or not: it has the keys that it takes."""
    shipped = (PROJECT / "configs" / "sampler").glob("*.yaml")
    annealing = {f"sampler={path.stem}" for path in shipped if "\n_target_:" not in path.read_text()}
    return any(text.startswith("sampler=") and text not in annealing and _today(text, "") is None for text in overrides)


def _renamed_to(write: str | None) -> str:
    """The clause of a key that only has another name; `write`: key=value of today."""
    return f"this program calls it {(write or '').partition('=')[0]}"


def _today(text: str, task_group: str) -> tuple[str | None, str] | None:
    """(what to write, or None for nothing; why) of an override that has another name today, else None."""
    plain = text.lstrip("+~")
    key, _, value = plain.partition("=")
    value = value if value.isprintable() else short(value)
    for row in ROWS:
        if any(fnmatchcase(candidate, row.old) for candidate in (key, plain, text.partition("=")[0])):
            if row.write is None or text.startswith("~"):
                return None, row.why or _renamed_to(row.write)
            stem = value.removesuffix("_latent")
            return row.write.format(value=value, stem=stem, last=key.rpartition(".")[2], task_group=task_group), row.why
    if key in DEFAULTS and text.startswith("+"):
        return f"{key}={value}", "groups stand in the defaults list, so they take no +"
    return None


def check_group_choices(overrides: Sequence[str]) -> None:
    """Refuses data=3, data=[1], data=null and =3, for which Hydra itself ends in a traceback, and what it lets pass and
    no run can use: data=[a,b] and ~data. Raises InputError."""
    parser = OverridesParser.create()
    for text in overrides:
        try:
            parsed = parser.parse_override(text)
        except HydraException:  # reported by utils/config/compose.py
            continue
        group = parsed.key_or_group
        if not (group == "" or (PROJECT / "configs" / group).is_dir()):
            continue
        if parsed.is_delete():
            if group in NEEDED:
                raise InputError(f"{short(text)}: every run needs one; choose it with {group}=..., {choices_of(group)}")
            continue
        if parsed.is_sweep_override():
            continue
        if group == "":
            raise InputError(f"{short(text)}: has no key; write key=value")
        choice = parsed.value()
        names = choice if isinstance(choice, list) and group not in NEEDED else [choice]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{short(text)}: is no name of a configuration; {choices_of(group)}")


def choices_of(group: str, names: Sequence[str] | None = None) -> str:
    """What there is to choose from in a group; `names`: as Hydra found them, default those in configs/."""
    names = names or sorted(path.stem for path in (PROJECT / "configs" / group).glob("*.yaml"))
    return f"in configs/{group} there are {', '.join(names)}"


def unknown_key(text: str) -> str:
    """The line for an override, "key=value", whose key is in no config; "+" in front does not matter."""
    try:
        check_renamed([text])
    except InputError as error:
        return str(error)
    key = text.lstrip("+~").partition("=")[0]
    group, *parts = key.split(".")
    annotations = _keys(Settings) | (_keys(TaskGroup, f"task.{parts[0]}.") if group == "task" and parts else {})
    near = difflib.get_close_matches(key, annotations, 1, 0.8)
    if near == [key]:
        return f"{short(text)}: the chosen {group}= has no such key" + ("; data=measurement has" if group == "data" else "")
    if key == "experiment":  # a block of keys instead of their values at the top
        return "experiment: has no such key; a file of configs/experiment must begin with the line # @package _global_"
    config = "hydra" if key.startswith("hydra.") else "job"
    return f"{short(text)}: there is no such key; " + (
        f"did you mean {near[0]}?" if near else f"--cfg {config} shows every key"
    )


def changes_results(override: str) -> bool:
    """Whether a Hydra override, "key=value", belongs to what the fingerprint covers."""
    key = override.lstrip("+~").split("=")[0]
    places = ("data.start_id", "data.end_id", "data.source", "model.source")
    return key.partition(".")[0] not in NOT_IN_FINGERPRINT and key not in places
