"""Every error that vitzoo raises on purpose.

An error has fields: ``problem`` with the bad value, ``expected``, ``fix``, and the values that it is about. `str()`
joins them. Each class also inherits the built-in error that it refines, so ``except ValueError`` works as usual.
"""

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any


class VitZooError(Exception):
    """Base of every error that vitzoo raises on purpose.

    Args:
        problem: The problem, with the bad value.
        expected: The allowed values, or the expected state.
        fix: One or two sentences of advice, such as the text of `did_you_mean`; an empty text is None.
        **values: The attributes that the class declares.
    """

    problem: str
    expected: str | None
    fix: str | None

    def __init__(self, problem: str, *, expected: str | None = None, fix: str | None = None, **values: Any):
        super().__init__(problem)
        self.problem, self.expected, self.fix = problem, expected, (fix or "").strip() or None
        for name, value in values.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
            setattr(self, name, value)

    def __str__(self) -> str:
        text = self.problem if self.expected is None else f"{self.problem}; expected {self.expected}"
        if text != self.problem or self.fix is not None:
            text += "" if text.endswith((".", "?", "!")) else "."
        return text if self.fix is None else f"{text} {self.fix}"


class MemberIdError(VitZooError, ValueError):
    """A text is not a member id."""

    text: str = ""


class ConflictingArgumentsError(VitZooError, ValueError):
    """Two arguments name different members, epochs or revisions."""


class ZooNotFoundError(VitZooError, FileNotFoundError):
    """There is no zoo with that name."""

    zoo: str = ""


class MemberNotFoundError(VitZooError, KeyError):
    """The zoo has no such member. ``member`` is a `vitzoo.ids.MemberId`."""

    member: Any = None


class EpochNotFoundError(VitZooError, KeyError):
    """The member has no weights of that epoch; ``epochs`` lists the saved ones."""

    epoch: int | None = None
    epochs: Sequence[int] = ()


class SelectionError(VitZooError, ValueError):
    """A choice of members or epochs is unknown, or selects nothing."""

    value: object = None


class LeakError(VitZooError, AssertionError):
    """Two parts of a split share a member, a family or weights.

    ``kind`` is member, family, weights_id, backbone_id or init_group, and ``value`` the shared value. ``members`` and
    ``parts`` have two items each. ``epochs`` has two if a digest is shared.
    """

    kind: str = ""
    value: Any = None
    members: tuple[Any, ...] = ()
    parts: tuple[Any, ...] = ()
    epochs: tuple[Any, ...] = ()


class _FileError(VitZooError):
    path: Path | None = None


class RecordError(_FileError, ValueError):
    """A record file of a zoo cannot be read."""


class UnreadableError(_FileError, OSError):
    """The system refuses to read a file or folder of a zoo, as for a denied permission or a failing disk."""


class FormatVersionError(RecordError):
    """A zoo has a newer format."""

    found: int = 0
    supported: int = 0


class ConfigError(_FileError, ValueError):
    """A config.json has a key or value that no member may have."""

    key: str | None = None


class WeightsError(_FileError, ValueError):
    """A weights file is damaged, altered, or does not fit its config.

    ``missing`` names the tensors that would be random.
    """

    missing: tuple[str, ...] = ()


class UnsafePathError(_FileError, ValueError):
    """A path or a link leaves the zoo, or a file is not a regular file."""


class MemberOverwriteError(_FileError, FileExistsError):
    """A model was to be saved in a member's folder. ``member`` is a `vitzoo.ids.MemberId`."""

    member: Any = None


class AuthenticityError(_FileError, ValueError):
    """A zoo has another digest than expected, or a file differs from the manifest."""


class HubError(VitZooError, OSError):
    """The Hub cannot be reached, or refuses. ``status`` is HTTP's; None without an answer."""

    repo: str | None = None
    status: int | None = None


class NotCachedError(HubError):
    """A file is not in the cache, and the Hub did not answer or may not be asked."""


class DownloadError(_FileError, OSError):
    """A download cannot be written."""


class RepresentationError(VitZooError, ValueError):
    """Weights cannot be encoded or decoded as asked."""

    value: object = None


class MissingPackageError(VitZooError, ImportError):
    """An optional package is not installed."""

    package: str = ""


class EmbeddingHeadError(VitZooError, TypeError):
    """An embedding head, which has no classes, was used as a classifier."""


class ReleaseError(VitZooError, ValueError):
    """Models from elsewhere cannot be imported: a folder is not a release, or a zoo was imported from another one."""

    path: str | PathLike[str] | None = None


class CheckpointError(ReleaseError):
    """A table of checkpoints, or a checkpoint of it, cannot be imported."""


class DatasetError(VitZooError, ValueError):
    """A data set is unknown, or a member was trained on another one."""

    dataset: str | None = None


class TrainingError(VitZooError, RuntimeError):
    """The trainer cannot start or continue."""


_TRAINING = Path(__file__).parents[1] / "training/__main__.py"


def advise(*, repository: str, wheel: str) -> str:
    """Choose between two texts of advice.

    Args:
        repository: May name ``make`` and ``python -m training``, which exist only in the repository.
        wheel: For an install of the wheel, which has no ``training`` beside ``vitzoo``.
    """
    return repository if _TRAINING.is_file() else wheel


_LONGEST = 100  # characters of a name that comes from a file


def printable(text: str) -> str:
    """Escape the control characters of a text."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(value: object) -> str:
    """Return a JSON value from an untrusted file as one line of at most 60 characters, escaped.

    An object or a list becomes its kind only, because it may be deeply nested.
    """
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def did_you_mean(value: object, known: Iterable[object]) -> str:
    """Name the known values nearest to a wrong one, or the first few if none is near.

    Args:
        value: The wrong value.
        known: The known values, in their natural order.

    Returns:
        A sentence with a leading space; empty if no value is known.
    """
    names = [printable(str(name)[:_LONGEST]) for name in known]
    near = get_close_matches(str(value)[:_LONGEST], names, n=3, cutoff=0.6)
    if near:
        return f" Nearest: {', '.join(near)}."
    if names:
        return f" There are: {', '.join(names[:8])}{', ...' if len(names) > 8 else '.'}"
    return ""
