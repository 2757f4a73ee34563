"""What the typed sections of a config have in common."""

from pydantic import BaseModel, ConfigDict, ValidationError

from utils.errors import InputError, short


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def refusal(key: str, error: ValidationError) -> InputError:
    """The line for the first fault of a block that stands at `key`."""
    first = error.errors()[0]
    name = ".".join([key, *map(str, first["loc"])])
    value = "" if first["type"] == "missing" else f"={short(first['input'])}"
    return InputError(f"{name}{value}: {first['msg'][0].lower()}{first['msg'][1:]}")
