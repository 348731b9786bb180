"""Fields of plain dataclasses hold what they are annotated with, checked when an object is made.

Python itself checks no annotation, so that ``epochs="2"`` would fail hours later, or in words of Python's own. Which
values of the right type are in range is each class's own to check, as is which words a `Literal` holds.
"""

import dataclasses
import functools
import types
import typing
from typing import Any, Literal

from vitzoo.errors import printable

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", types.NoneType: "None"}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts"}
_LONGEST = 60  # characters of a value in a message


def check_field_types(value: Any) -> None:
    """Refuse an object of a dataclass with a field of another type than its annotation's.

    An int does where a number is expected, a bool is no number, and a tuple is a tuple: a list does not hash.

    Args:
        value: The object; its annotations are of ``int``, ``float``, ``str``, ``bool``, None, dataclasses, and tuples
            and unions of them. A `Literal` is passed over.

    Raises:
        ValueError: A field holds something else; the message names it, its value and what was expected.
    """
    for name, hint in _hints(type(value)).items():
        _check(name, getattr(value, name), hint)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _check(name: str, value: object, hint: Any) -> None:
    if not _holds(value, hint):
        raise ValueError(f"{name} is {_shown(value)}; expected {_said(hint)}")
    if isinstance(value, tuple):
        for place, (one, its) in enumerate(zip(value, _places(hint, len(value)), strict=True)):
            _check(f"{name}[{place}]", one, its)


def _holds(value: object, hint: Any) -> bool:
    """Whether a value is of a type; what a tuple of the right length holds is looked at by itself."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_holds(value, one) for one in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and len(_places(hint, len(value))) == len(value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def _places(hint: Any, count: int) -> tuple[Any, ...]:
    """The types of a tuple's places, of which there are ``count``."""
    arguments = typing.get_args(hint)
    return arguments[:1] * count if arguments[-1] is ... else arguments


def _said(hint: Any) -> str:
    """A type as a message says it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_said(one) for one in arguments)
    if origin is tuple:
        several = _SEVERAL.get(arguments[0], f"{getattr(arguments[0], '__name__', '')}(...)")
        return f"a tuple of {several}" if arguments[-1] is ... else f"a tuple of {len(arguments)} {several}"
    return _WORDS.get(hint, f"{getattr(hint, '__name__', '')}(...)")


def _shown(value: object) -> str:
    text = f'"{printable(value)}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
