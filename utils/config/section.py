"""What the typed sections of a config have in common."""

from pydantic import BaseModel, ConfigDict, ValidationError

from utils.errors import InputError, short


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def refusal(key: str, error: ValidationError) -> InputError:
    """The line for the first fault of a block that stands at `key`, or of a whole config where that is empty."""
    first = error.errors()[0]
    name = ".".join([*[key] * bool(key), *map(str, first["loc"])])
    value = "" if first["type"] == "missing" else f"={short(first['input'])}"
    message = first["msg"].removeprefix("Value error, ")
    return InputError(f"{name}{value}: {message[0].lower()}{message[1:]}")
