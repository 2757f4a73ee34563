"""What the typed sections of a config have in common."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from utils.errors import InputError, short

SMALLEST, LARGEST = 1e-18, 1e12  # the squares of numbers between them are numbers of float32 too
MOST_STEPS = 100_000  # of an annealing, of its probability flow, or of a chain
LARGEST_SIDE = 2**14  # of an image, pixels


class Section(BaseModel):
    """A block of the config. Numbers are 0 or of a size with which float32 can compute, but those of `of_any_size`."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    of_any_size: ClassVar[tuple[str, ...]] = ()

    @field_validator("*")
    @classmethod
    def _of_a_size_to_compute_with(cls, value: Any, field: ValidationInfo) -> Any:
        if field.field_name in cls.of_any_size:
            return value
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and number and not SMALLEST <= abs(number) <= LARGEST:
                raise ValueError(f"must be 0 or of a size from {SMALLEST:g} to {LARGEST:g}")
        return value


def fault(error: ValidationError, block: Any, key: str = "") -> tuple[str, str]:
    """("key=value", what is wrong with it) of the first fault of a block that stands at `key`."""
    first = error.errors()[0]
    for part in first["loc"]:
        alternative = part not in block if isinstance(block, dict) else not isinstance(part, int)
        if alternative and first["type"] != "missing":
            break  # of a union, not a key
        if isinstance(block, list):
            key += f"[{part}]"
        else:
            key = f"{key}.{part}" if key else str(part)
        block = block.get(part) if isinstance(block, dict) else block[part]
        if not isinstance(block, (dict, list)):
            break  # what else the place says is which alternative of a union it was
    value = "" if first["type"] == "missing" else f"={short(first['input'])}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}{value}", f"{message[0].lower()}{message[1:]}"


def refusal(error: ValidationError, block: Any, key: str = "") -> InputError:
    """The line for the same."""
    return InputError(": ".join(fault(error, block, key)))
