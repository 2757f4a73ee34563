"""Composing with Hydra, whose own refusals are one line as well."""

import inspect
import os
import re
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from utils.config.overrides import (
    check_command_line,
    check_group_choices,
    check_renamed,
    choices_of,
    numbers_as_text,
    takes_text,
    unknown_key,
)
from utils.config.settings import ONE_DEVICE
from utils.errors import InputError, short
from utils.paths import PROJECT
from utils.plain_files import refuse_deep

RAISE = "HYDRA_FULL_ERROR"


def call(main: Callable[[], Any]) -> Any:
    """Calls a function of @hydra.main. Raises InputError for what this program or Hydra refuses before the function begins.

    Hydra prints its refusals in many lines and exits with 1. It raises them instead when HYDRA_FULL_ERROR=1, the variable
    that it documents for debugging: so they are caught where they arise, for -m, --cfg and --config-dir alike. Composing
    once more beforehand would have to repeat what those flags do. A variable that is set already asks for the traceback.
    """
    overrides = check_command_line(sys.argv[1:])
    sys.argv = [sys.argv[0], *(numbers_as_text(text) if text in overrides else text for text in sys.argv[1:])]
    if os.environ.get(RAISE) == "1":
        return main()
    os.environ[RAISE] = "1"
    try:
        return main()
    except (HydraException, OmegaConfBaseException, OSError) as error:
        if isinstance(error, BrokenPipeError) or _began(main, error):
            raise
        raise InputError(refusal(error, overrides)) from None
    except RuntimeError as error:
        launcher = next((text for text in overrides if text.startswith("hydra/launcher=") and "slurm" in text), None)
        if launcher is None or shutil.which("srun") or _began(main, error):
            raise
        raise InputError(f"{launcher}: this machine has no srun, so it is on no Slurm cluster; leave it out") from None
    finally:
        del os.environ[RAISE]


def _began(main: Callable[[], Any], error: BaseException) -> bool:
    """Whether an exception comes from the function itself."""
    code = inspect.unwrap(main).__code__
    return any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config of posterior_sample.py with some overrides. Raises InputError."""
    for override in overrides:
        refuse_deep(override)
    check_renamed(overrides)
    check_group_choices(overrides)
    try:
        with hydra.initialize_config_dir(str(PROJECT / "configs"), version_base="1.3"):
            return hydra.compose("default", overrides=[numbers_as_text(text) for text in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(refusal(error, overrides)) from None


def refusal(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an exception of Hydra; `overrides`: those of the command line."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={short(name)}: is no name of a configuration; {choices_of(group, error.options)}"
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return _no_folder(error, overrides)
    cause = error.__cause__
    lines = [line for part in (error, cause) if part is not None for line in str(part).splitlines()[:1] if line]
    text = _named_in(lines, overrides)
    if text is None:
        return "; ".join(lines) or type(error).__name__
    key, _, value = text.lstrip("+~").partition("=")
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and not text.startswith("~"):
        return unknown_key(text)
    if text.startswith("+"):
        return f"{short(text)}: {key} stands in the config already; write {short(text.lstrip('+'))}"
    if OverridesParser.create().parse_override(text).is_sweep_override() and not key.startswith("hydra"):
        if key == "gpu":
            return f"{short(text)}: {ONE_DEVICE}"
        if not takes_text(key):
            return f"{short(text)}: several values need -m"
        written = shlex.quote(quoted(key, short(value)))
        return f"{short(text)}: several values need -m, and one value with a comma quotes: {written}"
    return f"{short(text)}: {'; '.join(line[0].lower() + line[1:] for line in lines)}"


def _named_in(lines: Sequence[str], overrides: Sequence[str]) -> str | None:
    """The override whose key a message names, the longest if there are several; None if it names none."""
    named = {}
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if any(re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", line) for line in lines):
            named[key] = text
    return named[max(named, key=len)] if named else None


def _unreadable(error: OverrideParseException) -> str:
    """For an override that does not follow Hydra's grammar: as it would be read, if quotes are all it needs."""
    text = error.override
    key, equals, value = text.partition("=")
    if not text.strip():
        return f"{text!r}: an empty argument; a backslash that continues a line must be its last character"
    if not text.isprintable():
        return f"{short(text)}: has characters that cannot be printed; is a quote left open?"
    if not equals:
        return f"{short(text)}: has no value; write {short(text)}=..."
    written = quoted(key, value)
    try:
        if OverridesParser.create().parse_override(written).value() == value:
            return f"{short(text)}: characters such as = ( ) {{ }} : and commas need quotes; write {shlex.quote(written)}"
    except HydraException:
        pass
    return f"{short(text)}: cannot be read; write key=value"


def quoted(key: str, value: str) -> str:
    """An override whose value Hydra takes as text; a backslash is one unless it stands before a quote."""
    return '{}="{}"'.format(key, value.replace('"', '\\"'))


def _no_folder(error: OSError, overrides: Sequence[str]) -> str:
    """For a folder that Hydra could not make, of which this program needs none."""
    text = next((text for text in overrides if re.match(r"\+*hydra\.(run|sweep)\.(sub)?dir=", text)), None)
    if text is None:
        return f"{error.filename}: {error.strerror}; hydra.run.dir=... or, with -m, hydra.sweep.dir=... names another folder"
    return f"{short(text)}: cannot be made ({error.strerror}); leave it out, results go to save_dir/name"
