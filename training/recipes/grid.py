"""Populations in a line: every combination of some values of a recipe's dataclass."""

import dataclasses
import itertools
import types
import typing
from typing import Any, TypeVar

from vitzoo.errors import did_you_mean

T = TypeVar("T")


def grid(cls: type[T], /, **fields: object) -> tuple[T, ...]:
    """One object for each combination of the given values.

    A field given as a tuple, a list or a range is an axis; anything else is the same in all. Of a field that holds a
    tuple itself (`Architecture.mean`, `RandomResizedCrop.scale`) a tuple is one value, and a list of tuples an axis.

    Args:
        cls: A dataclass of `training.recipes`, such as `Optimizer`, `Head` or `Mixing`.
        **fields: Its fields.

    Returns:
        The product of the axes in the order in which they are given: the last one changes fastest. So a further value
        at the end of the first axis appends, and leaves the others where they stand.

    Raises:
        TypeError: ``cls`` is no dataclass, has no such field, or needs one that is not given.
        ValueError: An axis is empty, or a combination is refused; the message says which.

    Example:
        >>> from training.recipes.training import Optimizer
        >>> sgd = grid(Optimizer, name="sgd", learning_rate=(0.1, 0.01), momentum=(0.0, 0.9))
        >>> [(one.learning_rate, one.momentum) for one in sgd]
        [(0.1, 0.0), (0.1, 0.9), (0.01, 0.0), (0.01, 0.9)]
    """
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"grid makes dataclasses of a recipe, such as Optimizer or Head, not {cls!r}")
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for name in fields:
        if name not in known:
            raise TypeError(f'{cls.__name__} has no field "{name}".{did_you_mean(name, known)}')
    missing = [name for name, field in known.items() if name not in fields and _is_required(field)]
    if missing:
        raise TypeError(f"grid({cls.__name__}) lacks {', '.join(missing)}; each is a value, or a tuple of values")
    hints = typing.get_type_hints(cls)
    axes = {name: _axis(cls, name, value, holds_tuple=_holds_tuple(hints[name])) for name, value in fields.items()}
    return tuple(_make(cls, dict(zip(axes, cell, strict=True))) for cell in itertools.product(*axes.values()))


def _axis(cls: type, name: str, value: object, *, holds_tuple: bool) -> tuple[Any, ...]:
    if not isinstance(value, (list, range) if holds_tuple else (tuple, list, range)):
        return (value,)
    axis = tuple(value)
    if not axis:
        raise ValueError(f"grid({cls.__name__}): {name} is empty; expected a value, or one at least")
    return axis


def _make(cls: type[T], cell: dict[str, Any]) -> T:
    try:
        return cls(**cell)
    except (TypeError, ValueError) as error:
        values = ", ".join(f"{name}={value!r:.60}" for name, value in cell.items())
        raise ValueError(f"grid({cls.__name__}) at {values}: {error}") from error


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _holds_tuple(hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_holds_tuple(argument) for argument in typing.get_args(hint))
    return hint is tuple or typing.get_origin(hint) is tuple
