"""Many files of a Hub zoo at once: planned from its manifest, resumed where it stopped, compared with their hashes.

What is downloaded for one load is `vitzoo.sources.hub`'s business.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitzoo.errors import ConflictingArgumentsError, DownloadError, SelectionError, WeightsError
from vitzoo.hub_http import quiet
from vitzoo.ids import MemberId, MemberRef
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import check_file, link_or_copy, write_atomically
from vitzoo.records.manifest import FileRecord, Manifest
from vitzoo.sources.hub import HubSource
from vitzoo.sources.source import ZooSource, refuse_link_out

_WORKERS = 8
_LAST = Epochs("last")


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Files that are to come, and where they go.

    Args:
        source: The zoo.
        to: The folder that becomes a zoo of its own; None for the Hugging Face cache.
        files: What each file must be.
    """

    source: HubSource
    to: Path | None
    files: dict[PurePosixPath, FileRecord]

    @property
    def bytes(self) -> int:
        """Size of all files, equal ones counted once: a member's last epoch is its final weights."""
        return sum({file.sha256: file.size for file in self.files.values()}.values())

    @property
    def missing(self) -> int:
        """Size of those that are not there yet in the size that they should have, counted likewise."""
        root = self.source.root if self.to is None else self.to
        there = {
            file.sha256
            for relative, file in self.files.items()
            if os.path.isfile(root / relative) and os.path.getsize(root / relative) == file.size
        }
        return sum({file.sha256: file.size for file in self.files.values() if file.sha256 not in there}.values())


def find_weights(
    source: ZooSource, *, members: Iterable[MemberId] | None = None, epochs: Epochs = _LAST
) -> list[MemberRef]:
    """List the weights files of some members and epochs. ``all`` lists the last epoch and the final weights.

    Args:
        source: The zoo.
        members: The members; None for all.
        epochs: The epochs; the final weights by default.

    Raises:
        SelectionError: There are none.
    """
    ids = source.member_ids() if members is None else members
    found = []
    for member in ids:
        saved = sorted(source.saved_epochs(member), key=lambda epoch: (epoch is None, epoch))
        found += [MemberRef(member, epoch=epoch) for epoch in epochs.of(saved)]
    if not found:
        raise SelectionError(f'epochs "{epochs}" select no weights of any member', value=str(epochs))
    return found


def plan_download(
    source: ZooSource, weights: Iterable[MemberRef], *, to: str | os.PathLike[str] | None = None
) -> Download:
    """Plan a download. Only the manifest is downloaded for it.

    Args:
        source: A zoo in a Hub repo.
        weights: The weights, such as a `vitzoo.Selection` or the result of `find_weights`. The other files of their
            members, and the zoo's own, are added.
        to: A folder that becomes a zoo of its own; None for the Hugging Face cache, which loading uses.

    Raises:
        ConflictingArgumentsError: The zoo is a local folder, or ``to`` exists and is not a copy of the zoo.
        MemberNotFoundError, EpochNotFoundError: The zoo has no such weights.
        SelectionError: ``weights`` is empty.
        DownloadError: ``to`` cannot be read.
    """
    if not isinstance(source, HubSource):
        raise ConflictingArgumentsError(f"{source.name} is a local folder: there is nothing to download.")
    manifest = source.manifest
    wanted = {layout.weights_file(ref.member, ref.epoch): ref for ref in weights}
    if not wanted:
        raise SelectionError(f"No weights of {source.name} are wanted: there is nothing to download.")
    for path, ref in wanted.items():
        if layout.member_file(ref.member) not in manifest:
            raise source.no_member(ref.member)
        if path not in manifest:
            raise source.no_epoch(ref.member, ref.epoch)
    members, content = {ref.member for ref in wanted.values()}, manifest.to_bytes()
    files = {layout.MANIFEST: FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())}
    for name, file in manifest.files.items():
        relative = PurePosixPath(name)
        member, own_name = layout.parse_member_file(relative) or (None, "")
        if member is None or (member in members and (relative in wanted or not layout.is_weights_name(own_name))):
            files[relative] = file
    folder = None if to is None else Path(to).absolute()
    try:
        _check_target(folder, manifest)
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise DownloadError(
            f"{folder} cannot be read: {error.strerror}", fix="Name another folder.", path=folder
        ) from None
    return Download(source=source, to=folder, files=files)


def download(
    source: ZooSource,
    weights: Iterable[MemberRef],
    *,
    to: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> None:
    """Download weights and the other files of their members, with progress on standard error.

    Args:
        source: A zoo in a Hub repo.
        weights: As `plan_download`.
        to: As `plan_download`.
        progress: Whether to show progress.

    Raises:
        VitZooError: As `plan_download` and `run_download`.
    """
    planned = plan_download(source, weights, to=to)
    with quiet(), ByteProgress("downloading") if progress else contextlib.nullcontext() as shown:
        run_download(planned, report=None if shown is None else shown.update)


def run_download(download: Download, *, report: Callable[[int, int], None] | None = None) -> None:
    """Get the files that are not there, and compare every one with its hash.

    The manifest comes first into a folder, records after the weights they speak of and zoo.json last: one that was not
    finished is no zoo yet, and what it holds that differs from the manifest is replaced.

    Args:
        download: What `plan_download` gave.
        report: Called with the bytes that are there so far, and all of them.

    Raises:
        WeightsError: Files came with another hash, twice. They were removed; the others are there.
        RecordError: The repo lacks a file that its manifest names.
        HubError: The Hub cannot be reached, or refuses. What was downloaded is kept: the same call goes on from there.
        DownloadError: There is no room.
    """
    target = download.source.root if download.to is None else download.to
    needed, free = download.missing, _begin(target, None if download.to is None else download.source.manifest)
    if needed > free:
        raise DownloadError(
            f"{in_bytes(needed)} are to be downloaded to {target}, which has room for {in_bytes(free)}",
            fix="Make room, or choose fewer members (--where) or epochs (--epochs).",
            path=target,
        )
    done, seen = 0, set()
    for turn in _turns(download.files):
        wrong = []
        for relative, is_right in _get_all(download, turn):
            wrong += [] if is_right else [str(relative)]
            file = download.files[relative]
            done += file.size if file.sha256 not in seen else 0
            seen.add(file.sha256)
            if report is not None:
                report(done, download.bytes)
        if wrong:
            raise WeightsError(
                f"{len(wrong)} files of {download.source.name} came twice with another hash than its manifest says, "
                f"and were removed: {', '.join(sorted(wrong)[:5])}. The repo is damaged or was altered; the other "
                "files are kept.",
                path=target / sorted(wrong)[0],
            )


def _begin(target: Path, manifest: Manifest | None) -> int:
    """Make the folder ours, by its manifest, before anything else is put there; says how much room it has."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if manifest is not None and not (target / layout.MANIFEST).exists():
            write_atomically(refuse_link_out(target / layout.MANIFEST, target), manifest.to_bytes())
        return shutil.disk_usage(target).free
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror}",
            fix="Name another folder, or make this one writable.",
            path=target,
        ) from None


def _turns(files: dict[PurePosixPath, FileRecord]) -> list[dict[PurePosixPath, FileRecord]]:
    """What may come at once: records come after the weights they speak of, and zoo.json last."""
    turns: list[dict[PurePosixPath, FileRecord]] = [{}, {}, {}]
    for relative, file in files.items():
        turns[2 if relative == layout.ZOO_JSON else 1 if relative.name == layout.MEMBER_JSON else 0][relative] = file
    return turns


def _get_all(download: Download, files: dict[PurePosixPath, FileRecord]) -> Iterator[tuple[PurePosixPath, bool]]:
    """Get files, several at once, equal ones once; yields each with whether it is right."""
    equal: dict[str, list[PurePosixPath]] = {}
    for relative, file in files.items():
        equal.setdefault(file.sha256, []).append(relative)
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        futures = {pool.submit(_get, download, same[0], files[same[0]]): same for same in equal.values()}
        for future in as_completed(futures):
            first, *others = futures[future]
            is_right = future.result()
            yield first, is_right
            for relative in others:
                if is_right and download.to is not None:
                    link = refuse_link_out(download.to / relative, download.to)
                    if not link.is_file():
                        link.parent.mkdir(parents=True, exist_ok=True)
                        link_or_copy(download.to / first, link)
                yield relative, is_right and _get(download, relative, files[relative])
    except BaseException as error:
        # Who interrupts does not wait for files under way, nor for pauses that the Hub asked for.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def _check_target(folder: Path | None, manifest: Manifest) -> None:
    if folder is None or not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    known = folder / layout.MANIFEST
    if not known.is_file() or known.read_bytes() != manifest.to_bytes():
        raise ConflictingArgumentsError(
            f"{folder} is there already and is no copy of this zoo", fix="Name an empty or a new folder."
        )


def _get(download: Download, relative: PurePosixPath, file: FileRecord) -> bool:
    """Whether the file is there, whole and with its hash, after two tries."""
    for _ in range(2):
        path = download.source.fetch(relative, to=download.to)
        with contextlib.suppress(WeightsError):
            check_file(path, file, by="the manifest", error=WeightsError)
            return True
        if download.to is None:
            download.source.forget(relative)
        else:
            path.unlink()
    return False
