"""Problems of a zoo: what is wrong, where, and how to fix it. Errors become problems, so a verification goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vitzoo.errors import VitZooError
from vitzoo.ids import MemberId

AGAIN = "Get the file again, or train the member again."
_SHOWN_FILES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with a zoo.

    Args:
        member: The member that has it; None for the zoo's own files.
        what: The value found, and the expected one. Parts of it come from the zoo: escape it before it is shown.
        fix: What to do.
    """

    member: MemberId | None
    what: str
    fix: str


class Problems:
    """The problems of one member, or of the zoo's own files, in the order that they are found.

    Args:
        member: The member; None for the zoo's own files.
    """

    def __init__(self, member: MemberId | None):
        self.member = member
        self._files: dict[tuple[str, str], list[str]] = {}  # (what, fix) to the files that have it

    def add(self, what: str, *, file: str = "", fix: str = AGAIN) -> None:
        """Add a problem. Several files with the same problem share one.

        Args:
            what: The value found, and the expected one.
            file: The file that has it, if it is one file's.
            fix: What to do.
        """
        files = self._files.setdefault((what, fix), [])
        if file and file not in files:
            files.append(file)

    @contextmanager
    def collecting(self, *, file: str = "") -> Iterator[None]:
        """Turn an error of a file's content, or of reaching it, into a problem."""
        try:
            yield
        except VitZooError as error:
            what = error.problem if error.expected is None else f"{error.problem}; expected {error.expected}"
            self.add(what, file=file, fix=error.fix or AGAIN)
        except OSError as error:
            self.add(str(error), file=file, fix="Make it readable for you, and verify again.")

    def __iter__(self) -> Iterator[Problem]:
        for (what, fix), files in self._files.items():
            more = len(files) - _SHOWN_FILES
            names = ", ".join(files[:_SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
            yield Problem(member=self.member, what=f"{names}: {what}" if names else what, fix=fix)
