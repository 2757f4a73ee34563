"""What the command line says, before and beside the composed config."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from utils.config.fingerprint import NOT_IN_FINGERPRINT
from utils.errors import InputError, short
from utils.paths import PROJECT


def check_group_choices(arguments):
    """Refuses data=3, data=[1], data=null and =3, for which Hydra itself ends in a traceback. Raises InputError."""
    parser = OverridesParser.create()
    for text in arguments:
        try:
            parsed = parser.parse_override(text)
        except HydraException:  # a flag, or what Hydra reports in a line of its own
            continue
        group = parsed.key_or_group
        folder = PROJECT / "configs" / group
        if parsed.is_delete() or parsed.is_sweep_override() or not (group == "" or folder.is_dir()):
            continue
        choice = parsed.value()
        choices = choice if isinstance(choice, list) else [choice]
        if not all(isinstance(name, str) for name in choices):
            names = ", ".join(sorted(f.stem for f in folder.glob("*.yaml")))
            raise InputError(
                f"{short(text)}: is no name of a configuration; in configs/{group} there are {names}"
                if group
                else f"{short(text)}: has no key; write key=value"
            )


def changes_results(override):
    """Whether a Hydra override, "key=value", belongs to what the fingerprint covers."""
    key = override.lstrip("+~").split("=")[0]
    return key not in (*NOT_IN_FINGERPRINT, "data.start_id", "data.end_id", "data.source", "model.source")
