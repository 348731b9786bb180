"""Which epochs' weights stay on disk: ``all``, ``every-5``, ``last-3``. Pure; the trainer deletes the others.

A recipe does not say it: what is kept changes no member, only what of its way can be looked at. Which of the kept
epochs are published is `vitzoo.records.epochs.Epochs`'s.
"""

import re
from dataclasses import dataclass

from vitzoo.errors import SelectionError, shown

_CHOICE = re.compile(r"(?P<kind>every|last)-(?P<number>[1-9]\d{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Retention:
    """A choice of epochs to keep. The final weights are always kept.

    Args:
        text: ``all``; ``every-5`` (0, 5, 10, ... and the final one); ``last-3`` (the last three, the final one among
            them); ``last``, which is ``last-1``. `str()` gives it back.

    Raises:
        SelectionError: It is none of these.

    Example:
        >>> [epoch for epoch in range(9) if Retention("every-5").keeps(epoch, last=8)]
        [0, 5, 8]
    """

    text: str = "all"

    def __post_init__(self):
        if self.text not in ("all", "last") and not _CHOICE.fullmatch(self.text):
            raise SelectionError(
                f'{shown(self.text)} says not what to keep: expected "all", "last", "every-5" or "last-3".',
                value=self.text,
            )

    def __str__(self) -> str:
        return self.text

    def keeps(self, epoch: int, last: int) -> bool:
        """Whether an epoch's weights stay, once all are trained.

        Args:
            epoch: From 0, the member before its first step.
            last: The final epoch.
        """
        if self.text == "all" or epoch == last:
            return True
        choice = _CHOICE.fullmatch(self.text)
        if choice is None:  # "last"
            return False
        number = int(choice["number"])
        return epoch % number == 0 if choice["kind"] == "every" else epoch > last - number

    def count(self, last: int) -> int:
        """How many epochs are kept of 0 to ``last``."""
        return sum(self.keeps(epoch, last=last) for epoch in range(last + 1))
