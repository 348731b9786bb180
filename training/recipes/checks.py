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


def check_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse what is not one of the known words."""
    if value not in known:
        hint = did_you_mean(value, known)
        if not hint.startswith(" Nearest"):  # but a list of what there is, which stands here already
            hint = ""
        text = f'"{value}"' if isinstance(value, str) else value
        raise ValueError(f"{name} is {text}; expected {' or '.join(known)}{hint and '.'}{hint}")


def check_distinct(name: str, values: tuple[object, ...]) -> None:
    """Refuse values of which one stands twice."""
    for place, value in enumerate(values):
        first = values.index(value)
        if first < place:
            raise ValueError(f"{name}[{place}] is {value}, as {name}[{first}]; expected each once")


def check_seed(name: str, value: int) -> None:
    """Refuse what is no 32-bit word: the generator takes no other seeds."""
    if not 0 <= value < 2**32:
        raise ValueError(f"{name} is {value}; expected a seed from 0 to 2^32 - 1")
