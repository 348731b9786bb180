"""Choose the epochs whose weights stay on disk: ``all``, ``every-5``, ``last-3``. The trainer deletes the others.

It is a choice of the run and not of the recipe, because it changes no member. See `vitzoo.records.epochs` for the
epochs that are published.
"""

import re
from dataclasses import dataclass

from vitzoo.errors import SelectionError, shown

_CHOICE = re.compile(r"all|last|(?:every|last)-[1-9]\d{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Retention:
    """A choice of epochs to keep. The final weights are always kept.

    Args:
        text: ``all``; ``every-5`` (0, 5, 10, ... and the final epoch); ``last-3`` (the last three epochs); ``last``.

    Raises:
        SelectionError: The text is not one of these.

    Example:
        >>> [epoch for epoch in range(9) if Retention("every-5").keeps(epoch, last=8)]
        [0, 5, 8]
    """

    text: str = "all"

    def __post_init__(self):
        if not _CHOICE.fullmatch(self.text):
            raise SelectionError(
                f"{shown(self.text)} is not a choice of epochs to keep",
                expected='"all", "last", "every-5" or "last-3"',
                value=self.text,
            )

    def __str__(self) -> str:
        return self.text

    def keeps(self, epoch: int, last: int) -> bool:
        """Return whether an epoch's weights stay, once all epochs up to the last are trained."""
        if self.text == "all" or epoch == last:
            return True
        kind, _, number = self.text.partition("-")
        return epoch % int(number) == 0 if kind == "every" else epoch > last - int(number or 1)

    def count(self, last: int) -> int:
        """Return the number of epochs from 0 to ``last`` that are kept."""
        return sum(self.keeps(epoch, last=last) for epoch in range(last + 1))
