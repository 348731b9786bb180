"""Every error that vitzoo raises on purpose.

    VitZooError
    |-- MemberIdError (ValueError)          a text is no member id
    |-- ConflictingArgumentsError (ValueError)  two arguments say different things
    |-- ZooNotFoundError (FileNotFoundError)    a name leads to no zoo
    |-- MemberNotFoundError (KeyError)      the zoo has no such member
    |-- EpochNotFoundError (KeyError)       the member has no weights of that epoch
    |-- SelectionError (ValueError)         a choice of members or epochs is unknown, or chooses nothing
    |-- LeakError (AssertionError)          two sides of a split share what they must not
    |-- RecordError (ValueError)            a zoo.json, member.json or metrics.jsonl cannot be read
    |   `-- FormatVersionError              ... because a newer vitzoo wrote it
    |-- ConfigError (ValueError)            a config.json says what no member may say
    |-- WeightsError (ValueError)           a weights file is damaged, altered, or not what its config says
    |-- UnsafePathError (ValueError)        a path or a link leaves the zoo
    |-- AuthenticityError (ValueError)      a zoo or a file is not what a digest or a manifest says
    |-- HubError (OSError)                  the Hub cannot be reached, or refuses
    |-- DownloadError (OSError)             what the Hub gives cannot be written here
    |-- RepresentationError (ValueError)    weights cannot be encoded or decoded as asked
    |-- MissingPackageError (ImportError)   an optional package is not installed
    |-- EmbeddingHeadError (TypeError)      class names were asked of a head that has no classes
    |-- ReleaseError (ValueError)           a folder is no release of the zoo's authors
    |-- DatasetError (ValueError)           an image data set is unknown or not what a member was trained on
    `-- TrainingError (RuntimeError)        the trainer cannot start or go on

Each message names the bad value, what was expected and what to do. Each class refines a built-in, so
``except ValueError`` and ``except KeyError`` work as a caller would guess; the values stay as attributes.
"""

import json
from collections.abc import Iterable
from difflib import get_close_matches


class VitZooError(Exception):
    """Base of every error that vitzoo raises on purpose."""

    def __init__(self, message: str, **values: object):
        super().__init__(message)
        self.message = message
        self.__dict__.update(values)

    def __str__(self) -> str:  # KeyError would show the repr
        return self.message

    def __reduce__(self):  # keep the values when an error crosses a process boundary
        return (_restore, (type(self), self.__dict__.copy()))


def _restore(cls: type[VitZooError], values: dict[str, object]) -> VitZooError:
    message = str(values.pop("message"))
    return cls(message, **values)


class MemberIdError(VitZooError, ValueError):
    """A text is no member id. Attribute: ``text``."""


class ConflictingArgumentsError(VitZooError, ValueError):
    """Two arguments name different members, epochs or revisions."""


class ZooNotFoundError(VitZooError, FileNotFoundError):
    """A name leads to no zoo. Attribute: ``zoo``."""


class MemberNotFoundError(VitZooError, KeyError):
    """The zoo has no such member. Attribute: ``member``."""


class EpochNotFoundError(VitZooError, KeyError):
    """The member has no weights of that epoch. Attributes: ``epoch``, ``epochs``."""


class SelectionError(VitZooError, ValueError):
    """A choice of members or epochs is unknown, or chooses nothing. Attribute: ``value``."""


class LeakError(VitZooError, AssertionError):
    """Two parts of a split share what they must not.

    Attributes: ``kind`` (member, family, weights_id, backbone_id or init_group), ``value`` (which), ``members`` and
    ``parts`` (two each); of a digest also ``epochs`` (two).
    """


class RecordError(VitZooError, ValueError):
    """A record file of a zoo cannot be read. Attribute: ``path``."""


class FormatVersionError(RecordError):
    """A zoo of a newer format. Attributes: ``path``, ``found``, ``supported``."""


class ConfigError(VitZooError, ValueError):
    """A config says what no zoo member may say. Attributes: ``path``, ``key``."""


class WeightsError(VitZooError, ValueError):
    """A weights file is damaged, altered, or not what its config says. Attribute: ``path``."""


class UnsafePathError(VitZooError, ValueError):
    """A path or a link leaves the zoo. Attribute: ``path``."""


class AuthenticityError(VitZooError, ValueError):
    """A zoo is not the one whose digest was given, or a file not what the manifest says. Attribute: ``path``."""


class HubError(VitZooError, OSError):
    """The Hub cannot be reached, or refuses. Attributes: ``repo``, ``status`` (of HTTP; None without an answer)."""


class DownloadError(VitZooError, OSError):
    """What the Hub gives cannot be written here. Attribute: ``path``."""


class RepresentationError(VitZooError, ValueError):
    """Weights cannot be encoded or decoded as asked. Attribute: ``value``."""


class MissingPackageError(VitZooError, ImportError):
    """An optional package is not installed. Attribute: ``package``."""


class EmbeddingHeadError(VitZooError, TypeError):
    """Class names, or a classification loss, were asked of a head that has no classes."""


class ReleaseError(VitZooError, ValueError):
    """A folder is no release of the zoo's authors, or another than the one that a zoo was imported from.

    Attribute: ``path``.
    """


class DatasetError(VitZooError, ValueError):
    """An image data set is unknown, or not the one that a member was trained on. Attribute: ``dataset``."""


class TrainingError(VitZooError, RuntimeError):
    """The trainer cannot start or go on."""


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
