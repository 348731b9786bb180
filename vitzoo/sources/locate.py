"""From a name to a zoo, and from what a ``from_pretrained`` is given to a member of it.

``zoo`` means ``$VITZOO_ZOO``, else ``./zoo``; a path, or ``org/name`` where a folder of that name holds a zoo.json, is
a folder; any other ``org/name`` is a Hub repo. The member's files are found by the zoo's source
(`vitzoo.sources.source`).
"""

import os
import re
from pathlib import Path

from vitzoo.errors import ConflictingArgumentsError, HubError, MemberIdError, ZooNotFoundError
from vitzoo.ids import MemberId, MemberRef, as_text, is_zoo_name, is_zoo_path
from vitzoo.records import layout
from vitzoo.records.manifest import parse_digest
from vitzoo.sources.folder import HOW_TO_GET_ONE, FolderSource, is_zoo_folder
from vitzoo.sources.source import HubOptions, ZooSource

DEFAULT_ZOO = "zoo"
ZOO_VARIABLE = "VITZOO_ZOO"
Name = str | os.PathLike[str] | MemberRef | MemberId


def open_source(
    zoo: str | os.PathLike[str] | None = None, *, options: HubOptions | None = None, digest: str | None = None
) -> ZooSource:
    """The zoo of a name.

    Args:
        zoo: ``"zoo"`` or None for the default zoo, a path, or ``org/name``.
        options: How a Hub repo is reached.
        digest: What its manifest must hash to, where that is known.

    Raises:
        ZooNotFoundError: The name leads to no zoo.
        ConflictingArgumentsError: A revision was asked of a folder.
        AuthenticityError: It is not the zoo of that digest.
        HubError: The Hub cannot be reached, or refuses.
    """
    name, options = as_text(zoo) if isinstance(zoo, os.PathLike) else str(zoo), options or HubOptions()
    if digest is not None:
        parse_digest(digest)  # before the network is asked
    if zoo is None or zoo == DEFAULT_ZOO:
        name = os.environ.get(ZOO_VARIABLE) or DEFAULT_ZOO
        if name == DEFAULT_ZOO and not is_zoo_folder(DEFAULT_ZOO):
            raise ZooNotFoundError(
                f'"{DEFAULT_ZOO}" leads nowhere: {ZOO_VARIABLE} names no other, and ./{DEFAULT_ZOO} holds no '
                f"{layout.ZOO_JSON} (looked in {Path.cwd()}). {HOW_TO_GET_ONE}",
                zoo=DEFAULT_ZOO,
            )
        if name != DEFAULT_ZOO and not is_zoo_folder(name) and not _is_hub_name(name):
            raise ZooNotFoundError(
                f'{ZOO_VARIABLE} is "{name}", which is no zoo: no folder of that name holds a {layout.ZOO_JSON}',
                fix=f"Point it at one or at a Hub repo (org/name), or unset it to use ./{DEFAULT_ZOO}.",
                zoo=name,
            )
    if _is_hub_name(name) and not is_zoo_folder(name):
        from vitzoo.sources.hub import HubSource

        return HubSource(name, options=options, digest=digest)
    source = FolderSource(name if isinstance(zoo, str) or zoo is None else zoo, digest=digest)
    if options.revision is not None:
        raise ConflictingArgumentsError(
            f'revision="{options.revision}" was asked of the folder {source.root}. A revision is a git one of a Hub '
            "repo; for an epoch say epoch= or @<epoch>."
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
    """The member that the arguments of a ``from_pretrained`` name, and its zoo, opened.

    Args:
        name: A member id, or a zoo whose ``subfolder`` is one; anything else, None among it, is not ours.
        subfolder: transformers' spelling of the member inside the zoo.
        variant: transformers' spelling of the epoch.
        epoch: Finished epochs.
        options: How a Hub repo is reached; a revision is an error with a folder.

    Returns:
        The reference, with the epoch however it was said, and the zoo; None where the name is no member id and
        transformers should have it unchanged. Whether the zoo has the member is not asked yet.

    Raises:
        MemberIdError: The name starts as ours and is malformed.
        ConflictingArgumentsError: Two arguments disagree, or a revision is asked of a folder.
        ZooNotFoundError: The zoo is not there.
        RecordError: Its zoo.json is damaged.
        HubError: The Hub cannot be reached, or refuses.
    """
    found = None if name is None else _find(name, subfolder or None, options)
    if found is None:
        if epoch is not None:
            raise MemberIdError(
                f'epoch={epoch} was asked of "{name}", which is no member of a zoo. Only members have epochs: '
                'name one, such as "zoo/pt-0".',
                text=str(name),
            )
        return None
    ref, source = found
    ref = ref.at(epoch=epoch, variant=variant)  # before the network is asked
    return ref, source or open_source(ref.zoo, options=options)


def is_same_zoo(name: str, source: ZooSource) -> bool:
    """Return whether a zoo's name means an open source: its Hub repo, or a path to its folder."""
    if is_zoo_path(name) or os.path.isdir(name):
        return os.path.realpath(name) in (os.path.realpath(source.root), os.path.realpath(source.name))
    return name == source.name


def _is_hub_name(name: str) -> bool:
    return is_zoo_name(name) and not is_zoo_path(name)


def _find(name: Name, subfolder: str | None, options: HubOptions | None) -> tuple[MemberRef, ZooSource | None] | None:
    """The member that a name means, with its zoo where that had to be opened to know it."""
    text = as_text(name)
    if text.endswith("/") and os.path.isdir(text):  # a shell's completion writes the slash
        text = text.rstrip("/") or "/"
    if text == DEFAULT_ZOO or is_zoo_folder(text):
        if subfolder is None:
            raise MemberIdError(
                f'"{text}" is a zoo, not a member of it: expected "{text}/pt-0", or subfolder="pt-0".', text=text
            )
        zoo = text if text == DEFAULT_ZOO or is_zoo_name(text) else f"./{text}"
        return MemberRef(MemberId.parse(subfolder), zoo), None
    ref = MemberRef.match(text)
    if ref is None or (ref.zoo is not None and is_zoo_path(ref.zoo) and not is_zoo_folder(ref.zoo)):
        if os.path.isdir(text):
            ref = _member_at(text)
        elif ref is None:
            ref = _unlikely_member(text)
    if ref is None and subfolder is not None and not os.path.isdir(text) and is_zoo_name(text):
        return _hub_member(text, subfolder, options)
    if ref is not None and subfolder is not None and subfolder != str(ref.member):
        raise ConflictingArgumentsError(
            f'"{text}" names {ref.member}, but subfolder="{subfolder}"', fix="Say one of them."
        )
    return None if ref is None else (ref, None)


def _hub_member(repo: str, subfolder: str, options: HubOptions | None) -> tuple[MemberRef, ZooSource] | None:
    """A member in transformers' words, ``("org/name", subfolder="pt-0")``: only the repo can say that it is a zoo."""
    member = MemberId.match(subfolder)
    if member is None:
        return None
    try:
        return MemberRef(member, repo), open_source(repo, options=options)
    except ZooNotFoundError:
        return None
    except HubError as error:
        if error.status is None:  # offline, and no zoo.json in the cache: it may be a plain model
            return None
        raise


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
