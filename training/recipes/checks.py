"""Checks of a recipe's fields: each error names the field, its value and what was expected."""

import math

from vitzoo.errors import did_you_mean


def check_positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; expected a number above 0")


def check_range(name: str, value: float, largest: int, meaning: str) -> None:
    """Refuse what lies outside 0 to ``largest``; ``meaning`` says in the error what it is."""
    if not 0 <= value <= largest:
        raise ValueError(f"{name} is {value}; expected {meaning} from 0 to {largest}")


def check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse what is not one of the known words."""
    if value not in known:
        raise ValueError(f'{name} is "{value}"; expected {" or ".join(known)}.{did_you_mean(value, known)}')


def check_seed(name: str, value: int) -> None:
    """Refuse what is no 32-bit word: the generator takes no other seeds."""
    if not 0 <= value < 2**32:
        raise ValueError(f"{name} is {value}; expected a seed from 0 to 2^32 - 1")
