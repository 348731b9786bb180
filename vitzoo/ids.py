"""The names of a zoo's members: ``[<zoo>/]pt-<parent>[/ft-<child>][@<epoch>]``, as pure text.

``MemberId`` is a member inside a zoo (``pt-12/ft-3``); ``MemberRef`` adds the zoo and the epoch
(``org/vit-zoo/pt-12/ft-3@7``). ``parse`` and ``str()`` are exact inverses. See `vitzoo.sources.locate` for how names
resolve, and `vitzoo.records.layout` for a member's files.
"""

import os
import re
from dataclasses import dataclass, replace
from functools import total_ordering
from pathlib import PurePath

from vitzoo.errors import ConflictingArgumentsError, MemberIdError

_NUMBER = r"(?:0|[1-9]\d{0,8})"
_MEMBER = rf"pt-(?P<parent>{_NUMBER})(?:/ft-(?P<child>{_NUMBER}))?"
_MEMBER_ID = re.compile(_MEMBER, re.ASCII)
_MEMBER_REF = re.compile(rf"(?:(?P<zoo>.+)/)?{_MEMBER}(?:@(?P<epoch>{_NUMBER}))?", re.ASCII | re.DOTALL)
_VARIANT = re.compile(r"epoch-(?P<epoch>\d{2}|[1-9]\d{2,8})", re.ASCII)
# What huggingface_hub.utils.validate_repo_id takes for each half of a repo id, checked against it by a test.
_HUB_NAME = r"\w(?:[\w.-]{0,94}\w)?"
_HUB_REPO = re.compile(rf"(?!.*(?:--|\.\.)){_HUB_NAME}/{_HUB_NAME}(?<!\.git)", re.ASCII)

DEFAULT_ZOO = "zoo"
DEMO_ZOO = "demo"

EXPECTED_REF = (
    "[<zoo>/]pt-<parent>[/ft-<child>][@<epoch>] with numbers from 0 and no leading zeros, "
    'such as "zoo/pt-12/ft-3" or "pt-0@7"'
)


@total_ordering
@dataclass(frozen=True, slots=True)
class MemberId:
    """A member inside its zoo: a parent ``pt-<parent>``, or a child ``pt-<parent>/ft-<child>``.

    Args:
        parent: Number of the pre-trained parent, from 0; of the member itself for a parent. See also `parent_id`.
        child: Number of the fine-tuned child under that parent, from 0; None for the parent itself.

    Raises:
        MemberIdError: A number is not a whole number from 0 to 999999999.

    Example:
        >>> MemberId.parse("pt-12/ft-3")
        MemberId(parent=12, child=3)
        >>> str(MemberId(12))
        'pt-12'
    """

    parent: int
    child: int | None = None

    def __post_init__(self):
        _check_number("A member's number", self.parent)
        if self.child is not None:
            _check_number("A member's number", self.child)

    @classmethod
    def parse(cls, text: str) -> "MemberId":
        """Parse ``pt-<parent>`` or ``pt-<parent>/ft-<child>``.

        Raises:
            MemberIdError: The text is anything else.
        """
        member = cls.match(text)
        if member is None:
            raise MemberIdError(
                f'"{text}" is not a member of a zoo',
                expected="pt-<parent> or pt-<parent>/ft-<child>, with numbers from 0 and no leading zeros, such as "
                '"pt-12/ft-3"',
                text=text,
            )
        return member

    @classmethod
    def match(cls, text: str) -> "MemberId | None":
        """Parse like `parse`, but return None if the text is not a member id."""
        match = _MEMBER_ID.fullmatch(text)
        return match and cls(int(match["parent"]), int(match["child"]) if match["child"] else None)

    def __str__(self) -> str:
        return f"pt-{self.parent}" if self.child is None else f"pt-{self.parent}/ft-{self.child}"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, MemberId):
            return NotImplemented
        return self._key < other._key

    @property
    def _key(self) -> tuple[int, int]:  # a parent comes before its children
        return (self.parent, -1 if self.child is None else self.child)

    @property
    def is_parent(self) -> bool:
        """True for a pre-trained parent, False for a fine-tuned child."""
        return self.child is None

    @property
    def parent_id(self) -> "MemberId | None":
        """The id of a child's parent, as the column ``parent`` of the tables has it; None for a parent."""
        return None if self.child is None else MemberId(self.parent)


@dataclass(frozen=True, slots=True)
class MemberRef:
    """A member, the zoo it is in, and an epoch of its training.

    Args:
        member: The member inside its zoo.
        zoo: Name of the zoo: ``"zoo"`` or None (the default zoo), ``"demo"``, ``"org/name"``, or a path that
            starts with ``./``, ``../`` or ``/``.
        epoch: Finished epochs of training, from 0; None for the final weights.

    Raises:
        MemberIdError: The epoch is not a whole number from 0 to 999999999.

    Example:
        >>> MemberRef.parse("./my-zoo/pt-12/ft-3@7")
        MemberRef(member=MemberId(parent=12, child=3), zoo='./my-zoo', epoch=7)
    """

    member: MemberId
    zoo: str | None = None
    epoch: int | None = None

    def __post_init__(self):
        if self.epoch is not None:
            _check_number("An epoch", self.epoch)

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> "MemberRef":
        """Parse ``[<zoo>/]pt-<parent>[/ft-<child>][@<epoch>]``. A path object always names a folder.

        Raises:
            MemberIdError: The text is anything else.
        """
        ref = cls.match(text)
        if ref is None:
            raise _not_a_ref(os.fspath(text))
        return ref

    @classmethod
    def match(cls, text: str | os.PathLike[str]) -> "MemberRef | None":
        """Parse like `parse`, but return None for a text that may mean something to transformers.

        Raises:
            MemberIdError: The text starts with ``zoo/``, which is always a zoo, and is not a member id.
        """
        name = as_text(text)
        match = _MEMBER_REF.fullmatch(name)
        if match is not None and (match["zoo"] in (None, DEFAULT_ZOO, DEMO_ZOO) or is_zoo_name(match["zoo"])):
            member = MemberId(int(match["parent"]), int(match["child"]) if match["child"] else None)
            return cls(member, match["zoo"], int(match["epoch"]) if match["epoch"] else None)
        if name.startswith("zoo/"):
            raise _not_a_ref(name)
        return None

    def __str__(self) -> str:
        zoo = "" if self.zoo is None else f"{self.zoo}/"
        epoch = "" if self.epoch is None else f"@{self.epoch}"
        return f"{zoo}{self.member}{epoch}"

    def at(self, *, epoch: int | None = None, variant: str | None = None) -> "MemberRef":
        """Return this reference at the epoch given as ``@7``, ``epoch=7`` or ``variant="epoch-07"``.

        Raises:
            ConflictingArgumentsError: Two of them differ.
            MemberIdError: The variant is not an epoch.
        """
        given = {
            f"@{self.epoch}": self.epoch,
            f"epoch={epoch}": epoch,
            f'variant="{variant}"': None if variant is None else parse_variant(variant),
        }
        given = {text: value for text, value in given.items() if value is not None}
        if len(set(given.values())) > 1:
            raise ConflictingArgumentsError(
                f'''"{self}" has different epochs: {" and ".join(given)}''', fix="Name the epoch once."
            )
        return replace(self, epoch=next(iter(given.values()), None))


def as_text(name: "str | os.PathLike[str] | MemberRef | MemberId") -> str:
    """Return a name as text. A path object gets a leading ``./``, because it never means the default zoo."""
    if isinstance(name, (str, MemberRef, MemberId)):
        return str(name)
    text = PurePath(name).as_posix()
    return text if text.startswith(("/", "../", "./")) or text in ("..", ".") else f"./{text}"


def is_zoo_path(name: str) -> bool:
    """Return whether a zoo's name is a path rather than a Hub repo: it starts with ``./``, ``../`` or ``/``."""
    return name in (".", "..") or name.startswith(("./", "../", "/"))


def is_zoo_name(name: str) -> bool:
    """Return whether a text can name a zoo other than the default one: a path, or ``org/name``."""
    return is_zoo_path(name) or (_HUB_REPO.fullmatch(name) is not None and not name.startswith("zoo/"))


def _check_number(name: str, value: int) -> None:
    """Refuse a value that `_NUMBER` does not match; numpy's integers pass, a float or a bool does not."""
    if not hasattr(value, "__index__") or isinstance(value, bool) or not 0 <= value < 10**9:
        raise MemberIdError(f"{name} is {value}", expected="a whole number from 0 to 999999999", text=str(value))


def _not_a_ref(text: str) -> MemberIdError:
    return MemberIdError(f'"{text}" is not a member id', expected=EXPECTED_REF, text=text)


def parse_variant(variant: str) -> int:
    """Return the epoch of a transformers ``variant``, the inverse of `vitzoo.records.layout.variant_name`.

    Raises:
        MemberIdError: It is not ``epoch-`` and at least two digits.
    """
    match = _VARIANT.fullmatch(variant)
    if match is None:
        raise MemberIdError(
            f'variant="{variant}" is not an epoch of a zoo member',
            expected='"epoch-" and at least two digits, such as "epoch-07"',
            fix="Leave it out for the final weights.",
            text=variant,
        )
    return int(match["epoch"])
