"""Where a zoo is: from a name to files that exist and belong to it.

``zoo`` means ``$VITZOO_ZOO``, else ``./zoo``; a path or ``org/name`` is a folder that holds a zoo.json. Every
file of a zoo is opened through `FolderSource.path`, which refuses what lies outside. Together with
`vitzoo.images` this is the only module that may touch the network; it reads folders so far.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitzoo import layout, records
from vitzoo.errors import (
    ConflictingArgumentsError,
    EpochNotFoundError,
    MemberIdError,
    MemberNotFoundError,
    RecordError,
    UnsafePathError,
    ZooNotFoundError,
    did_you_mean,
    shown,
)
from vitzoo.ids import MemberId, MemberRef, as_text, is_zoo_name, is_zoo_path

DEFAULT_ZOO = "zoo"
ZOO_VARIABLE = "VITZOO_ZOO"
Name = str | os.PathLike[str] | MemberRef | MemberId
_HOW_TO_GET_ONE = (
    'Generate one with "make zoo" (or "python -m training run digits --out zoo"), '
    f"or name one: a path such as ./my-zoo/pt-0, or {ZOO_VARIABLE}=/path/to/zoo."
)


class FolderSource:
    """A zoo in a local folder.

    Args:
        root: The folder that holds zoo.json.

    Raises:
        ZooNotFoundError: There is no zoo.json.
        RecordError: zoo.json is damaged, or of a newer format.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root).absolute()  # a later change of the working directory moves no zoo
        if not is_zoo_folder(self.root):
            raise ZooNotFoundError(
                f"{self.root} is no zoo: it holds no {layout.ZOO_JSON}. {_HOW_TO_GET_ONE}", zoo=str(root)
            )
        self.record = records.load_zoo_record(self.path(layout.ZOO_JSON))

    def __repr__(self) -> str:
        return f"FolderSource({str(self.root)!r})"

    def path(self, relative: PurePosixPath) -> Path:
        """The local path of a file or folder of the zoo.

        Args:
            relative: Its place in the zoo, from `vitzoo.layout`.

        Raises:
            UnsafePathError: It is, or goes through, a link that leaves the zoo.
        """
        path = self.root / relative
        real, root = os.path.realpath(path), os.path.realpath(self.root)
        if os.path.commonpath([real, root]) != root:
            raise UnsafePathError(
                f"{path} is a link to {real}, which is outside the zoo {self.root}. A zoo's files never leave its "
                "folder: copy the file in, or take the link out.",
                path=path,
            )
        return path

    def member_ids(self) -> list[MemberId]:
        """Every finished member, parents before their children."""
        members = []
        for parent in _numbered_folders(self.root, "pt"):
            members.append(MemberId(parent))
            members += [MemberId(parent, child) for child in _numbered_folders(self.root / f"pt-{parent}", "ft")]
        return [member for member in members if self.path(layout.member_file(member)).is_file()]

    def member_record(self, member: MemberId) -> records.MemberRecord:
        """Read a member's record.

        Raises:
            MemberNotFoundError: The zoo has no such member.
            RecordError: Its folder holds no valid member.json.
        """
        folder, path = self.path(layout.member_folder(member)), self.path(layout.member_file(member))
        if not folder.is_dir():
            raise MemberNotFoundError(
                f"The zoo {self.root} has no member {member}.{did_you_mean(member, self.member_ids())}",
                member=member,
            )
        if not path.is_file():
            raise RecordError(
                f"{folder} holds no {path.name}: it is no finished member. Train it again "
                "(python -m training run), or get the folder again.",
                path=path,
            )
        record = records.load_member_record(path)
        if record.id != str(member):
            raise RecordError(f"{path} says id {shown(record.id)}, but lies in the folder of {member}.", path=path)
        return record


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberFiles:
    """A member found: its record, and the files that one load reads.

    Args:
        ref: The reference that led here, with the epoch however it was said.
        record: The member's record.
        config: Its config.json.
        weights: The weights file of the epoch.
        weights_record: What the member's record says of that file.
    """

    ref: MemberRef
    record: records.MemberRecord
    config: Path
    weights: Path
    weights_record: records.WeightsRecord


def is_zoo_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a zoo.json."""
    return (Path(path) / layout.ZOO_JSON).is_file()


def open_source(zoo: str | os.PathLike[str] | None = None) -> FolderSource:
    """The zoo of a name.

    Args:
        zoo: ``"zoo"`` or None for the default zoo, a path, or ``org/name``.

    Raises:
        ZooNotFoundError: The name leads to no zoo.
    """
    if zoo is None or zoo == DEFAULT_ZOO:
        named = os.environ.get(ZOO_VARIABLE)
        if named:
            if is_zoo_folder(named):
                return FolderSource(named)
            raise ZooNotFoundError(
                f'{ZOO_VARIABLE} is "{named}", which is no zoo: no folder of that name holds a {layout.ZOO_JSON}. '
                f"Point it at one, or unset it to use ./{DEFAULT_ZOO}.",
                zoo=named,
            )
        if is_zoo_folder(DEFAULT_ZOO):
            return FolderSource(DEFAULT_ZOO)
        raise ZooNotFoundError(
            f'"{DEFAULT_ZOO}" leads nowhere: {ZOO_VARIABLE} is not set, and ./{DEFAULT_ZOO} holds no '
            f"{layout.ZOO_JSON} (looked in {Path.cwd()}). {_HOW_TO_GET_ONE}",
            zoo=DEFAULT_ZOO,
        )
    if not is_zoo_path(str(zoo)) and not is_zoo_folder(zoo):
        raise ZooNotFoundError(
            f'"{zoo}" leads nowhere: no folder of that name (in {Path.cwd()}) holds a {layout.ZOO_JSON}, and zoos are '
            "not read from the Hub yet. Download it (hf download) and name its folder.",
            zoo=str(zoo),
        )
    return FolderSource(zoo)


def locate(
    name: Name | None,
    *,
    subfolder: str | None = None,
    variant: str | None = None,
    epoch: int | None = None,
    revision: str | None = None,
) -> MemberFiles | None:
    """The files of the member that the arguments of a ``from_pretrained`` name.

    Args:
        name: A member id, or a zoo whose ``subfolder`` is one; anything else, None among it, is not ours.
        subfolder: transformers' spelling of the member inside the zoo.
        variant: transformers' spelling of the epoch.
        epoch: Finished epochs.
        revision: git's; an error with a folder.

    Returns:
        The files, or None where the name is no member id and transformers should have it unchanged.

    Raises:
        MemberIdError: The name starts as ours and is malformed.
        ConflictingArgumentsError: Two arguments disagree, or a revision is asked of a folder.
        ZooNotFoundError, MemberNotFoundError, EpochNotFoundError: Something is not there.
        RecordError: A record is damaged or missing.
    """
    ref = None if name is None else _match_member(name, subfolder or None)
    if ref is None:
        if epoch is not None:
            raise MemberIdError(
                f'epoch={epoch} was asked of "{name}", which is no member of a zoo. Only members have epochs: '
                'name one, such as "zoo/pt-0".',
                text=str(name),
            )
        return None
    ref = ref.at(epoch=epoch, variant=variant)
    source = open_source(ref.zoo)
    if revision is not None:
        raise ConflictingArgumentsError(
            f'revision="{revision}" was asked of "{ref}", which lies in the folder {source.root}. A revision is a '
            "git one of a Hub repo; for an epoch say epoch= or @<epoch>."
        )
    record = source.member_record(ref.member)
    try:
        weights_record = record.weights_at(ref.epoch)
    except LookupError:
        raise EpochNotFoundError(
            f"{ref.member} has no weights of epoch {ref.epoch}; kept are {_ranges(record.kept_epochs)}.",
            epoch=ref.epoch,
            epochs=record.kept_epochs,
        ) from None
    return MemberFiles(
        ref=ref,
        record=record,
        config=_existing(source, layout.config_file(ref.member)),
        weights=_existing(source, layout.weights_file(ref.member, ref.epoch)),
        weights_record=weights_record,
    )


def _match_member(name: Name, subfolder: str | None) -> MemberRef | None:
    text = as_text(name)
    if text.endswith("/") and os.path.isdir(text):  # a shell's completion writes the slash
        text = text.rstrip("/") or "/"
    if text == DEFAULT_ZOO or is_zoo_folder(text):
        if subfolder is None:
            raise MemberIdError(
                f'"{text}" is a zoo, not a member of it: expected "{text}/pt-0", or subfolder="pt-0".', text=text
            )
        return MemberRef(MemberId.parse(subfolder), text if text == DEFAULT_ZOO or is_zoo_name(text) else f"./{text}")
    ref = MemberRef.match(text)
    if ref is None or (ref.zoo is not None and is_zoo_path(ref.zoo) and not is_zoo_folder(ref.zoo)):
        if os.path.isdir(text):
            ref = _member_at(text)
        elif ref is None:
            ref = _unlikely_member(text)
    if ref is not None and subfolder is not None and subfolder != str(ref.member):
        raise ConflictingArgumentsError(f'"{text}" names {ref.member}, but subfolder="{subfolder}". Say one of them.')
    return ref


def _member_at(folder: str) -> MemberRef | None:
    """The member whose folder this is, however it was reached; None for a model that somebody saved."""
    real = Path(os.path.realpath(folder))
    for root in real.parents[:2]:
        if is_zoo_folder(root):
            return MemberRef.match(real)
    return None


def _unlikely_member(text: str) -> MemberRef | None:
    """What the grammar leaves to the Hub, but no Hub repo can be meant by."""
    ref = MemberRef.match(f"./{text}")
    if ref is not None and ref.zoo is not None and is_zoo_folder(ref.zoo):  # "my-zoo/pt-0@3", of a local my-zoo
        return ref
    if re.match(r"pt-\d|pt-[^/]*/ft-", text):  # "pt-01": a slip rather than a repo
        return MemberRef.parse(text)
    return None


def _existing(source: FolderSource, relative: PurePosixPath) -> Path:
    path = source.path(relative)
    if not path.is_file():
        raise RecordError(
            f"{path} is missing: the member is not whole. Get the folder again, or train the member again.", path=path
        )
    return path


def _numbered_folders(folder: Path, prefix: str) -> list[int]:
    numbers = []
    for entry in os.scandir(folder):
        head, _, number = entry.name.partition("-")
        if head == prefix and number.isascii() and number.isdigit() and str(int(number)) == number and entry.is_dir():
            numbers.append(int(number))
    return sorted(number for number in numbers if number < 10**9)


def _ranges(numbers: list[int]) -> str:
    if not numbers:
        return "none"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))
