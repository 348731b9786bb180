"""What is wrong with a zoo, where, and what to do; and how errors become problems, so that the search goes on."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vitzoo.errors import UnsafePathError, VitZooError
from vitzoo.ids import MemberId

AGAIN = "Get the file again, or train the member again."
_SHOWN_FILES = 2
# Where an error's message, after what is wrong, begins to say what to do.
_ADVICE = re.compile(r"(?<=[.:]) (?=(?:Copy|Do not|Get|Install|Publish|Restore|Train|Try|Upgrade)\b)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is wrong with a zoo.

    Args:
        member: Whose it is; None for the zoo's own files.
        what: What is wrong: the value found, and what was expected. Parts of it come from the zoo: escape it before
            it is shown.
        fix: What to do.
    """

    member: MemberId | None
    what: str
    fix: str


class Problems:
    """The problems of one member, or of the zoo's own files, as they are found.

    Args:
        member: Whose they are; None for the zoo's own files.
    """

    def __init__(self, member: MemberId | None):
        self.member = member
        self._files: dict[tuple[str, str], list[str]] = {}  # (what, fix) to the files that have it

    def add(self, what: str, *, file: str = "", fix: str = AGAIN) -> None:
        """Note a problem; of several files with the same one problem is made.

        Args:
            what: The value found, and what was expected.
            file: The file that has it, where it is one file's.
            fix: What to do.
        """
        files = self._files.setdefault((what, fix), [])
        if file and file not in files:
            files.append(file)

    @contextmanager
    def collecting(self, *, file: str = "") -> Iterator[None]:
        """Make a problem of an error that a file's content, or reaching it, may cause."""
        try:
            yield
        except (VitZooError, OSError) as error:
            what, *advice = _ADVICE.split(str(error), maxsplit=1)
            if advice:
                self.add(what, file=file, fix=advice[0])
            elif isinstance(error, UnsafePathError):
                self.add(what, file=file, fix="Copy the file in, or take the link out.")
            elif isinstance(error, VitZooError):
                self.add(what, file=file)
            else:
                self.add(what, file=file, fix="Make it readable for you, and verify again.")

    def __iter__(self) -> Iterator[Problem]:
        for (what, fix), files in self._files.items():
            more = len(files) - _SHOWN_FILES
            names = ", ".join(files[:_SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
            yield Problem(member=self.member, what=f"{names}: {what}" if names else what, fix=fix)
