"""Problems of a zoo: the problem, its file and its fix. Errors become problems, so a verification continues."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vitzoo.errors import DatasetError, HubError, MissingPackageError, VitZooError
from vitzoo.ids import MemberId
from vitzoo.notebook import Shown

_AGAIN = "Get the file again, or train the member again."
_FIXES: dict[type[VitZooError], str] = {  # of errors that are not about a file of the zoo and bring no fix
    DatasetError: "Name a folder that has the data set: --data NAME=FOLDER. Only --evaluate needs it.",
    HubError: "Verify again when the Hub answers.",
    MissingPackageError: "Install it, and verify again.",
}
_SHOWN_FILES = 2  # the others are counted


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Problem(Shown):
    """A problem of a zoo. Parts of `what` come from the zoo: escape it before it is shown."""

    member: MemberId | None  # None for the zoo's own files
    what: str  # the bad value and the expected one
    fix: str  # a sentence


class Problems:
    """Collects the problems of one member, or of the zoo's own files (None), in order."""

    def __init__(self, member: MemberId | None):
        self.member = member
        self._files: dict[tuple[str, str], list[str]] = {}  # (what, fix) to the files that have it

    def add(self, what: str, *, file: str = "", fix: str = _AGAIN) -> None:
        """Add a problem, of a file or of none. Several files with the same problem share one."""
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
            fix = next((fix for kind, fix in _FIXES.items() if isinstance(error, kind)), _AGAIN)
            self.add(what, file=file, fix=error.fix or fix)
        except OSError as error:
            self.add(str(error), file=file, fix="Make it readable for you, and verify again.")

    def __iter__(self) -> Iterator[Problem]:
        for (what, fix), files in self._files.items():
            more = len(files) - _SHOWN_FILES
            names = ", ".join(files[:_SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
            yield Problem(member=self.member, what=f"{names}: {what}" if names else what, fix=fix)
