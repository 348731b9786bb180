"""Many files of a Hub zoo at once: planned from its manifest, resumed where it stopped, compared with their hashes.

What is downloaded for one load is `vitzoo.hub`'s business.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitzoo import layout
from vitzoo.errors import ConflictingArgumentsError, DownloadError, RecordError, WeightsError
from vitzoo.hub import HubSource
from vitzoo.ids import MemberId
from vitzoo.manifest import FileRecord, Manifest
from vitzoo.progress import in_bytes
from vitzoo.selection import Epochs
from vitzoo.weights.header import file_sha256
from vitzoo.zoo import Zoo

_WORKERS = 8


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
        """Size of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def missing(self) -> dict[PurePosixPath, FileRecord]:
        """The files that are not there yet in the size that they should have."""
        root = self.source.root if self.to is None else self.to
        return {
            relative: file
            for relative, file in self.files.items()
            if not (root / relative).is_file() or (root / relative).stat().st_size != file.size
        }


def plan_download(
    zoo: Zoo,
    *,
    members: Collection[MemberId] | None = None,
    epochs: Epochs | None = None,
    to: str | os.PathLike[str] | None = None,
) -> Download:
    """What is to be downloaded; nothing but the manifest is.

    Args:
        zoo: A zoo in a Hub repo.
        members: Whose files; None for all members'.
        epochs: Which weights of theirs; the final ones by default.
        to: A folder that becomes a zoo of its own; None for the Hugging Face cache, where loading finds them.

    Raises:
        ConflictingArgumentsError: The zoo is a local folder, or ``to`` is there and is no copy of it.
    """
    source = zoo.source
    if not isinstance(source, HubSource):
        raise ConflictingArgumentsError(f"{source.name} is a local folder: there is nothing to download.")
    manifest = source.manifest
    if manifest is None:
        raise RecordError(f"{source.name} has no {layout.MANIFEST}. Publish it again.", path=None)
    chosen = set(manifest.member_ids if members is None else members)
    content = manifest.to_bytes()
    files = {layout.MANIFEST: FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())}
    for name, file in manifest.files.items():
        relative = PurePosixPath(name)
        member, own_name = layout.parse_member_file(relative) or (None, "")
        if member is None or (member in chosen and _is_wanted(own_name, manifest, member, epochs or Epochs("last"))):
            files[relative] = file
    folder = None if to is None else Path(to).absolute()
    _check_target(folder, manifest)
    return Download(source=source, to=folder, files=files)


def run_download(download: Download, *, report: Callable[[int, int], None] | None = None) -> None:
    """Get the files that are not there, and compare every one with its hash.

    Records come after the weights they speak of and zoo.json last: a folder that was not finished is no zoo yet.

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
    needed = sum(file.size for file in download.missing.values())
    target.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise DownloadError(
            f"{in_bytes(needed)} are to be downloaded to {target}, which has room for {in_bytes(free)}. Make room, or "
            "choose fewer members (--where) or epochs (--epochs).",
            path=target,
        )
    done = 0
    for turn in _turns(download.files):
        wrong = []
        for relative, is_right in _get_all(download, turn):
            wrong += [] if is_right else [str(relative)]
            done += download.files[relative].size
            if report is not None:
                report(done, download.bytes)
        if wrong:
            raise WeightsError(
                f"{len(wrong)} files of {download.source.name} came twice with another hash than its manifest says, "
                f"and were removed: {', '.join(sorted(wrong)[:5])}. The repo is damaged or was altered; the other "
                "files are kept.",
                path=target / sorted(wrong)[0],
            )


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
                    _link(download.to / first, download.to / relative)
                yield relative, is_right and (download.to is not None or _get(download, relative, files[relative]))
    finally:
        pool.shutdown(cancel_futures=True)


def _link(first: Path, other: Path) -> None:
    """Let a file stand in a second place too: a member's final weights are its last epoch's."""
    if other.is_file():
        return
    other.parent.mkdir(parents=True, exist_ok=True)
    try:
        other.hardlink_to(first)
    except OSError:  # a file system without links
        shutil.copy(first, other)


def _is_wanted(name: str, manifest: Manifest, member: MemberId, epochs: Epochs) -> bool:
    if not layout.is_weights_name(name):
        return True
    return layout.parse_weights_name(name) in epochs.of(manifest.kept_epochs(member))


def _check_target(folder: Path | None, manifest: Manifest) -> None:
    if folder is None or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    known = folder / layout.MANIFEST
    begun = (folder / ".cache/huggingface").is_dir()
    if (known.is_file() and known.read_bytes() != manifest.to_bytes()) or not (known.is_file() or begun):
        raise ConflictingArgumentsError(
            f"{folder} is there already and is no copy of this zoo. Name an empty or a new folder."
        )


def _get(download: Download, relative: PurePosixPath, file: FileRecord) -> bool:
    """Whether the file is there, whole and with its hash, after two tries."""
    for _ in range(2):
        path = download.source.fetch(relative, to=download.to)
        if path.stat().st_size == file.size and file_sha256(path) == file.sha256:
            return True
        if download.to is None:
            download.source.forget(relative)
        else:
            path.unlink()
    return False
