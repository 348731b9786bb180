"""Every error that vitzoo raises on purpose.

    VitZooError
    |-- MemberIdError (ValueError)          a text is not a member id
    |-- ConflictingArgumentsError (ValueError)  two arguments contradict each other
    |-- ZooNotFoundError (FileNotFoundError)    a name leads to no zoo
    |-- MemberNotFoundError (KeyError)      the zoo has no such member
    |-- EpochNotFoundError (KeyError)       the member has no weights of that epoch
    |-- SelectionError (ValueError)         a choice of members or epochs is unknown, or selects nothing
    |-- LeakError (AssertionError)          two parts of a split leak into each other
    |-- RecordError (ValueError)            a zoo.json, member.json or metrics.jsonl cannot be read
    |   `-- FormatVersionError              ... because a newer vitzoo wrote it
    |-- ConfigError (ValueError)            a config.json holds what no member's may hold
    |-- WeightsError (ValueError)           a weights file is damaged, altered, or does not fit its config
    |-- UnsafePathError (ValueError)        a path or a link leaves the zoo
    |-- AuthenticityError (ValueError)      a zoo or a file differs from a digest or a manifest
    |-- HubError (OSError)                  the Hub cannot be reached, or refuses
    |-- DownloadError (OSError)             a download cannot be written
    |-- RepresentationError (ValueError)    weights cannot be encoded or decoded as asked
    |-- MissingPackageError (ImportError)   an optional package is not installed
    |-- EmbeddingHeadError (TypeError)      an embedding head was used as a classifier
    |-- ReleaseError (ValueError)           a folder is not a release of the zoo's authors
    |-- DatasetError (ValueError)           a data set is unknown, or not the one that a member was trained on
    `-- TrainingError (RuntimeError)        the trainer cannot start or continue

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
        problem: What is wrong, with the bad value.
        expected: The allowed values, or the expected state.
        fix: What to do about it, one or two sentences.
        **values: The attributes that the class declares.
    """

    problem: str
    expected: str | None
    fix: str | None

    def __init__(self, problem: str, *, expected: str | None = None, fix: str | None = None, **values: Any):
        super().__init__(problem)
        self.problem, self.expected, self.fix = problem, expected, fix
        for name, value in values.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
            setattr(self, name, value)

    def __str__(self) -> str:
        text = self.problem if self.expected is None else f"{self.problem}; expected {self.expected}"
        if text != self.problem or self.fix is not None:
            text += "" if text.endswith((".", "?", "!")) else "."
        return text if self.fix is None else f"{text} {self.fix}"

    def __reduce__(self):  # keep the fields when an error crosses a process boundary
        return (_restore, (type(self), self.__dict__.copy()))


def _restore(cls: type, fields: dict[str, Any]) -> Any:
    error = cls(fields["problem"])
    error.__dict__.update(fields)
    return error


class MemberIdError(VitZooError, ValueError):
    """A text is not a member id."""

    text: str = ""


class ConflictingArgumentsError(VitZooError, ValueError):
    """Two arguments name different members, epochs or revisions."""


class ZooNotFoundError(VitZooError, FileNotFoundError):
    """A name leads to no zoo."""

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

    ``kind`` is member, family, weights_id, backbone_id or init_group, and ``value`` the shared one. ``members`` and
    ``parts`` hold two each; for a digest, ``epochs`` holds two.
    """

    kind: str = ""
    value: Any = None
    members: tuple[Any, ...] = ()
    parts: tuple[Any, ...] = ()
    epochs: tuple[Any, ...] = ()


class RecordError(VitZooError, ValueError):
    """A record file of a zoo cannot be read."""

    path: Path | None = None


class FormatVersionError(RecordError):
    """A zoo has a newer format."""

    found: int = 0
    supported: int = 0


class ConfigError(VitZooError, ValueError):
    """A config holds what no zoo member's may hold."""

    path: Path | None = None
    key: str | None = None


class WeightsError(VitZooError, ValueError):
    """A weights file is damaged, altered, or does not fit its config."""

    path: Path | None = None


class UnsafePathError(VitZooError, ValueError):
    """A path or a link leaves the zoo."""

    path: Path | None = None


class AuthenticityError(VitZooError, ValueError):
    """A zoo is not the one of the given digest, or a file differs from the manifest."""

    path: Path | None = None


class HubError(VitZooError, OSError):
    """The Hub cannot be reached, or refuses. ``status`` is HTTP's; None without an answer."""

    repo: str | None = None
    status: int | None = None


class DownloadError(VitZooError, OSError):
    """A download cannot be written."""

    path: Path | None = None


class RepresentationError(VitZooError, ValueError):
    """Weights cannot be encoded or decoded as asked."""

    value: object = None


class MissingPackageError(VitZooError, ImportError):
    """An optional package is not installed."""

    package: str = ""


class EmbeddingHeadError(VitZooError, TypeError):
    """Class names, or a classification loss, were asked of a head without classes."""


class ReleaseError(VitZooError, ValueError):
    """A folder is not a release of the zoo's authors, or not the one that a zoo was imported from."""

    path: str | PathLike[str] | None = None


class DatasetError(VitZooError, ValueError):
    """A data set is unknown, or not the one that a member was trained on."""

    dataset: str | None = None


class TrainingError(VitZooError, RuntimeError):
    """The trainer cannot start or continue."""


_LONGEST = 100  # characters of a name that comes from a file


def printable(text: str) -> str:
    """Text whose control characters do nothing: escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(value: object) -> str:
    """A value from a file that is not trusted, as an error message shows it: escaped, on one line and cut short.

    Args:
        value: A JSON value.

    Returns:
        JSON text of at most 60 characters; of an object or a list the name only, for they may be deeply nested.
    """
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def did_you_mean(value: object, known: Iterable[object]) -> str:
    """The end of an error message: the nearest known values, or the first few where none is near.

    Args:
        value: What was asked for.
        known: What there is, in its natural order.

    Returns:
        A sentence with a leading space, empty where nothing is known.
    """
    names = [printable(str(name)[:_LONGEST]) for name in known]
    near = get_close_matches(str(value)[:_LONGEST], names, n=3, cutoff=0.6)
    if near:
        return f" Nearest: {', '.join(near)}."
    if names:
        return f" There are: {', '.join(names[:8])}{', ...' if len(names) > 8 else '.'}"
    return ""
