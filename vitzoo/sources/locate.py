"""Find the zoo that a name means, and the member that the arguments of a ``from_pretrained`` mean.

``zoo`` means ``$VITZOO_ZOO``, else ``./zoo``. ``demo`` means ``./demo`` if that folder has a zoo.json, else the small
zoo in the wheel. A path, or ``org/name`` if a folder of that name has a zoo.json, means a folder. Any other
``org/name`` means a Hub repo. See `vitzoo.sources.source` for how a zoo finds its members' files.
"""

import os
import re
from pathlib import Path
from typing import TypeVar

from vitzoo.errors import (
    ConflictingArgumentsError,
    EpochNotFoundError,
    MemberIdError,
    NotCachedError,
    ZooNotFoundError,
    did_you_mean,
)
from vitzoo.ids import DEFAULT_ZOO, DEMO_ZOO, EXPECTED_REF, MemberId, MemberRef, as_text, is_zoo_name, is_zoo_path
from vitzoo.records import layout
from vitzoo.records.manifest import parse_digest
from vitzoo.sources.folder import DEMO_FOLDER, ZOO_VARIABLE, FolderSource, how_to_get_a_zoo, is_zoo_folder
from vitzoo.sources.source import HubOptions, ZooSource

Name = str | os.PathLike[str] | MemberRef | MemberId
NameT = TypeVar("NameT")


def expand_home(name: NameT) -> NameT | str:
    """Replace a leading ``~``, in a text or a path object, by the home folder."""
    if isinstance(name, (str, os.PathLike)) and (text := os.fspath(name)).startswith("~"):
        return os.path.expanduser(text)
    return name


def open_source(
    zoo: str | os.PathLike[str] | None = None, *, options: HubOptions | None = None, digest: str | None = None
) -> ZooSource:
    """Open the zoo of a name: ``"zoo"`` or None for the default zoo, ``"demo"``, a path, or ``org/name``.

    Raises:
        ZooNotFoundError: The name leads to no zoo.
        ConflictingArgumentsError: A revision was given for a folder.
        AuthenticityError: The zoo has another digest.
        HubError: The Hub cannot be reached, or refuses.
    """
    zoo, options = None if zoo is None else expand_home(zoo), options or HubOptions()
    name = as_text(zoo) if isinstance(zoo, os.PathLike) else str(zoo)
    if digest is not None:
        parse_digest(digest)  # before any request
    if zoo is None or zoo == DEFAULT_ZOO:
        name = os.path.expanduser(os.environ.get(ZOO_VARIABLE) or DEFAULT_ZOO)
        if name == DEFAULT_ZOO and not is_zoo_folder(DEFAULT_ZOO):
            raise ZooNotFoundError(
                f'"{DEFAULT_ZOO}" leads to no zoo: {ZOO_VARIABLE} is not set, and {Path.cwd() / DEFAULT_ZOO} has no '
                f"{layout.ZOO_JSON}",
                fix=how_to_get_a_zoo(DEFAULT_ZOO),
                zoo=DEFAULT_ZOO,
            )
        if name not in (DEFAULT_ZOO, DEMO_ZOO) and not is_zoo_folder(name) and not _is_hub_name(name):
            raise ZooNotFoundError(
                f'{ZOO_VARIABLE} is "{name}", which is not a zoo: no folder of that name has a {layout.ZOO_JSON}',
                fix=f"Set it to a folder or a Hub repo (org/name), or unset it to use ./{DEFAULT_ZOO}.",
                zoo=name,
            )
    if _is_hub_name(name) and not is_zoo_folder(name):
        from vitzoo.sources.hub import HubSource

        return HubSource(name, options=options, digest=digest)
    folder = name if isinstance(zoo, str) or zoo is None else zoo
    if _is_in_wheel(name):
        source = FolderSource(DEMO_FOLDER, name=DEMO_ZOO, digest=digest)
    else:
        source = FolderSource(folder, digest=digest)
    if options.revision is not None:
        raise ConflictingArgumentsError(
            f'revision="{options.revision}" was given for the folder {source.root}',
            expected="a Hub repo, because a revision is a git revision",
            fix="For an epoch say epoch= or @<epoch>.",
        )
    return source


def locate(
    name: Name | None,
    *,
    subfolder: str | None = None,
    variant: str | None = None,
    epoch: int | None = None,
    options: HubOptions | None = None,
) -> tuple[MemberRef, ZooSource] | None:
    """Find the member that the arguments of a ``from_pretrained`` mean, and open its zoo.

    ``subfolder`` is transformers' spelling of the member, and ``variant`` of the epoch. Whether the zoo has the member
    is not checked here.

    Returns:
        The reference with its epoch, and the zoo. None if the name is not a member id, so transformers gets it
        unchanged. With an epoch it is then a member's folder outside of a zoo, which has these weights.

    Raises:
        EpochNotFoundError: A member's folder outside of a zoo has no such weights.
        MemberIdError: The name starts like a member id and is malformed.
        ConflictingArgumentsError: Two arguments disagree, or a revision was given for a folder.
        ZooNotFoundError: The zoo does not exist.
        RecordError: The zoo.json is damaged.
        HubError: The Hub cannot be reached, or refuses.
    """
    member = None if name is None else _find_member(name, subfolder or None, options)
    if member is None:
        if epoch is not None:
            _check_saved(name, subfolder=subfolder, variant=variant, epoch=epoch)
        return None
    ref, source = member
    ref = ref.at(epoch=epoch, variant=variant)  # before any request
    return ref, source or open_source(ref.zoo, options=options)


def _check_saved(name: Name | None, *, subfolder: str | None, variant: str | None, epoch: int) -> None:
    """Check that a member's folder outside of a zoo, copied or downloaded alone, has the weights of an epoch."""
    folder = Path("" if name is None else as_text(name), subfolder or "")
    names = os.listdir(folder) if name is not None and folder.is_dir() else []
    saved = sorted(number for number in map(layout.parse_weights_name, names) if number is not None)
    if not saved and layout.MEMBER_JSON not in names:
        raise MemberIdError(
            f'epoch={epoch} was given for "{name}", which is not a member of a zoo',
            expected='a member, such as "zoo/pt-0"',
            text=str(name),
        )
    if variant not in (None, layout.variant_name(epoch)):
        raise ConflictingArgumentsError(f'epoch={epoch} and variant="{variant}" differ', fix="Name the epoch once.")
    if epoch not in saved:
        raise EpochNotFoundError(
            f"{folder} has no weights of epoch {epoch}",
            fix=did_you_mean(epoch, saved) or "It has the final weights at most: leave the epoch out.",
            epoch=epoch,
            epochs=saved,
        )


def is_same_zoo(name: str, source: ZooSource) -> bool:
    """Tell whether a zoo's name means an open source: its Hub repo, or a path to its folder."""
    name = str(DEMO_FOLDER) if _is_in_wheel(name) else expand_home(name)
    if is_zoo_path(name) or os.path.isdir(name):
        return os.path.realpath(name) == os.path.realpath(source.root)
    return name == source.name


def _is_in_wheel(name: str) -> bool:
    """Tell whether a name means the zoo in the wheel: a local folder ``demo`` with a zoo.json wins."""
    return name == DEMO_ZOO and not is_zoo_folder(name)


def _is_hub_name(name: str) -> bool:
    return is_zoo_name(name) and not is_zoo_path(name)


def _find_member(
    name: Name, subfolder: str | None, options: HubOptions | None
) -> tuple[MemberRef, ZooSource | None] | None:
    """Return the member that a name means, and its zoo if only the zoo could tell."""
    text = as_text(expand_home(name))
    if text.endswith("/") and os.path.isdir(text):  # as a shell's completion writes it
        text = text.rstrip("/") or "/"
    is_named = text == DEFAULT_ZOO or (text == DEMO_ZOO and not os.path.isdir(text))  # a saved model may be in ./demo
    if is_named or is_zoo_folder(text):
        if subfolder is None:
            raise MemberIdError(
                f'"{text}" is a zoo, not a member of it', expected=f'"{text}/pt-0", or subfolder="pt-0"', text=text
            )
        zoo = text if is_named or is_zoo_name(text) else f"./{text}"
        return MemberRef(MemberId.parse(subfolder), zoo), None
    ref = MemberRef.match(text)
    if ref is None or (ref.zoo is not None and _is_folder_name(ref.zoo) and not is_zoo_folder(ref.zoo)):
        if os.path.isdir(text):
            ref = _match_folder(text)
        elif ref is None:
            ref = _match_unlikely(text)
    if ref is None and subfolder is not None and not os.path.isdir(text):
        if "/" not in text and (member := MemberId.match(subfolder)) is not None:
            return MemberRef(member, f"./{text}"), None  # a missing zoo, because Hub zoos are "org/name"
        if is_zoo_name(text):
            return _find_hub_member(text, subfolder, options)
    if ref is not None and subfolder is not None and subfolder != str(ref.member):
        raise ConflictingArgumentsError(
            f'"{text}" names {ref.member}, but subfolder="{subfolder}"', fix="Give only one of them."
        )
    if ref is None:
        _refuse_missing(text)
    return None if ref is None else (ref, None)


def _is_folder_name(zoo: str) -> bool:
    return zoo == DEMO_ZOO or is_zoo_path(zoo)


def _find_hub_member(repo: str, subfolder: str, options: HubOptions | None) -> tuple[MemberRef, ZooSource] | None:
    """Open the repo of ``("org/name", subfolder="pt-0")``, and return None if it is not a zoo."""
    member = MemberId.match(subfolder)
    if member is None:
        return None
    try:
        return MemberRef(member, repo), open_source(repo, options=options)
    except (ZooNotFoundError, NotCachedError):  # without a zoo.json it may be a plain model
        return None


def _match_folder(folder: str) -> MemberRef | None:
    """Return the member of a folder inside a zoo, or None for a model saved elsewhere."""
    real = Path(os.path.realpath(folder))
    return MemberRef.match(real) if any(map(is_zoo_folder, real.parents[:2])) else None


def _match_unlikely(text: str) -> MemberRef | None:
    """Return the member of a text that names no folder, and whose zoo is not written as a path or a Hub repo.

    "my-zoo/pt-0@3" is in a local my-zoo. "zoo2/pt-0" could name a Hub repo, but means a member of a missing zoo.
    """
    ref = MemberRef.match(f"./{text}")
    if ref is None and re.match(r"pt-\d|pt-[^/]*/ft-|[^/]+/pt-\d+$", text):  # "pt-01" is a mistake rather than a repo
        return MemberRef.parse(text)
    return ref


def _refuse_missing(text: str) -> None:
    """Raise an error for a text that transformers can only refuse: it is neither a path that exists nor a Hub repo."""
    if os.path.exists(text) or "/" not in text:
        return
    zoo = next((folder for folder in map(str, Path(text).parents[:2]) if folder != "." and is_zoo_folder(folder)), None)
    if zoo is not None:
        member = Path(text).relative_to(zoo).as_posix()
        fix = did_you_mean(member, FolderSource(zoo).member_ids())
        raise MemberIdError(f'"{member}" is not a member of {zoo}', expected=EXPECTED_REF, fix=fix, text=text)
    if not _is_hub_name(text):
        raise ZooNotFoundError(
            f'"{text}" does not exist, and is neither a member id nor a Hub repo', fix=how_to_get_a_zoo(text), zoo=text
        )
