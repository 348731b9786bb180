"""Check that the fields of a frozen dataclass hold the types and ranges of their annotations.

A range is a `msgspec.Meta` in the annotation, whose description says in words what the field expects. Types for common
ranges are below. See `vitzoo.records.dataset_spec` and `training.recipes` for the dataclasses.
"""

import functools
import json
import math
import types
import typing
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "True or False", types.NoneType: "None"}
_LONGEST = 60  # characters of a value in a message

PositiveInt = Annotated[int, Meta(ge=1, description="a whole number above 0")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1, description="a whole number from 0 on")]
Seed = Annotated[int, Meta(ge=0, lt=2**32, description="a seed from 0 to 2^32 - 1, a whole number")]
Positive = Annotated[float, Meta(gt=0, description="a number above 0")]
NonNegative = Annotated[float, Meta(ge=0, description="a number from 0 on")]
Commit = Annotated[str, Meta(pattern="^[0-9a-f]{40}$", description="a commit, 40 hex digits")]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="a digest, 64 hex digits")]
Probability = Annotated[float, Meta(ge=0, le=1, description="a probability from 0 to 1")]


class FieldError(ValueError):
    """A field has the wrong type or is out of range. Attributes: ``field``, ``value``, ``expected``."""

    def __init__(self, field: str, value: object, expected: str):
        super().__init__(field, value, expected)
        self.field, self.value, self.expected = field, value, expected

    def __str__(self) -> str:
        text = json.dumps(self.value) if isinstance(self.value, str) else repr(self.value)
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        return f"{self.field} is {text}; expected {self.expected}"


def check_fields(instance: Any) -> None:
    """Check every field of a dataclass's instance against its annotation.

    An int is accepted where a float is expected. A bool is not a number, a list is not a tuple, and no number may be
    NaN or infinite.

    Raises:
        FieldError: A field has the wrong type or is out of range.
    """
    for name, hint in _hints(type(instance)).items():
        value = getattr(instance, name)
        try:
            accepted = _unchanged(value, msgspec.convert(value, hint))
        except msgspec.ValidationError:
            accepted = False
        if not accepted:
            raise FieldError(name, value, _describe(hint))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def _unchanged(value: object, converted: object) -> bool:
    """Return whether msgspec took a value as it is: it would make tuples of lists, and accepts NaN."""
    if isinstance(converted, tuple):
        return isinstance(value, tuple) and all(map(_unchanged, value, converted))
    if isinstance(converted, float):
        return isinstance(value, int | float) and math.isfinite(converted)
    return type(value) is type(converted)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return arguments[1].description or _describe(arguments[0])
    if origin is Literal:
        return " or ".join(arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is tuple:
        number = "" if arguments[-1] is ... else f" of {len(arguments)}"
        return f"a tuple{number}, each {_describe(arguments[0])}"
    return _TYPES.get(hint) or f"{hint.__name__}(...)"
