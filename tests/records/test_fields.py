"""Fields of frozen dataclasses: values that their annotations refuse, and the words of the errors."""

import math
import pickle
from dataclasses import dataclass
from typing import Literal

import pytest

from vitzoo.records.fields import Count, FieldError, Positive, PositiveInt, Probability, Seed, check_fields


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: PositiveInt = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    epochs: PositiveInt = 1
    left: Count = 0
    rate: Positive = 1.0
    clip: Positive | None = None
    pair: tuple[Probability, Probability] = (0.0, 1.0)
    seeds: tuple[Seed, ...] = ()
    kind: Literal["mlp", "linear"] = "mlp"
    inner: Inner | None = None
    name: str = "a"
    streamed: bool = False


def checked(field: str, value: object) -> Outer:
    made = Outer()
    object.__setattr__(made, field, value)  # the constructor would run the tests' own type checks first
    check_fields(made)
    return made


REFUSED = [
    ("epochs", 0, "epochs is 0; expected a whole number above 0"),
    ("epochs", 2.0, "epochs is 2.0; expected a whole number above 0"),
    ("epochs", True, "epochs is True; expected a whole number above 0"),
    ("left", -1, "left is -1; expected a whole number from 0 on"),
    ("rate", 0, "rate is 0; expected a number above 0"),
    ("rate", math.nan, "rate is nan; expected a number above 0"),
    ("rate", 10**400, "rate is 1000"),
    ("clip", "1", 'clip is "1"; expected a number above 0 or None'),
    ("pair", [0.0, 1.0], "pair is [0.0, 1.0]; expected a tuple of 2, each a probability from 0 to 1"),
    ("pair", (0.0, math.nan), "pair is (0.0, nan); expected a tuple of 2, "),
    ("seeds", (1, 2**32), "seeds is (1, 4294967296); expected a tuple, each a seed from 0 to 2^32 - 1"),
    ("seeds", 1, "seeds is 1; expected a tuple, each a seed"),
    ("kind", "mpl", 'kind is "mpl"; expected mlp or linear'),
    ("inner", {"size": 2}, "inner is {'size': 2}; expected Inner(...) or None"),
    ("name", 5, "name is 5; expected text"),
    ("streamed", 1, "streamed is 1; expected True or False"),
    ("epochs", "a\n" * 80, r'epochs is "a\na\n'),
]


@pytest.mark.parametrize(("field", "value", "message"), REFUSED)
def test_check_fields_refuses_wrong_type_or_range(field: str, value: object, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        checked(field, value)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 140
    assert (caught.value.field, caught.value.value) == (field, value) or value != value
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)


def test_check_fields_accepts_int_for_float_and_keeps_it() -> None:
    made = checked("rate", 2)
    assert type(made.rate) is int
    assert checked("pair", (0, 1)).pair == (0, 1)
    assert checked("inner", Inner(size=3)).inner == Inner(size=3)
