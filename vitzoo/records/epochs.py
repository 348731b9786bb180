"""A choice of epochs as text: ``all``, ``last``, ``every-10`` or ``0,10,20``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vitzoo.errors import SelectionError

_EVERY = re.compile(r"every-(?P<step>[1-9]\d{0,8})", re.ASCII)
_EPOCHS = re.compile(r"(?:0|[1-9]\d{0,8})(?:,(?:0|[1-9]\d{0,8}))*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Epochs:
    """A choice of epochs: ``all``, ``last`` (the final weights), ``every-10`` (and the final ones) or ``0,10,20``.

    Args:
        text: The choice; `str()` returns it.

    Raises:
        SelectionError: The text is none of these.

    Example:
        >>> Epochs("every-10").of([0, 5, 10, 11, None])
        [0, 10, None]
    """

    text: str = "all"

    def __post_init__(self):
        if self.text not in ("all", "last") and not _EVERY.fullmatch(self.text) and not _EPOCHS.fullmatch(self.text):
            raise SelectionError(
                f'"{self.text}" is not a choice of epochs',
                expected='"all", "last", "every-10" or "0,10,20"',
                value=self.text,
            )

    def __str__(self) -> str:
        return self.text

    @property
    def numbers(self) -> frozenset[int]:
        """The epochs that the choice lists one by one; empty for another kind of choice."""
        return frozenset(map(int, self.text.split(","))) if _EPOCHS.fullmatch(self.text) else frozenset()

    def of(self, saved: Iterable[int | None]) -> list[int | None]:
        """Return the saved epochs that this choice selects. None stands for the final weights."""
        every = _EVERY.fullmatch(self.text)
        if self.text == "all":
            return list(saved)
        if self.text == "last":
            return [epoch for epoch in saved if epoch is None]
        if every is not None:
            return [epoch for epoch in saved if epoch is None or epoch % int(every["step"]) == 0]
        chosen = self.numbers
        return [epoch for epoch in saved if epoch in chosen]
