"""Download many files of a Hub zoo: planned from its manifest, resumed after an interruption, checked by their hashes.

See `vitzoo.sources.hub` for the download of one file.
"""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec
from filelock import FileLock, Timeout

from vitzoo.errors import ConflictingArgumentsError, DownloadError, SelectionError, VitZooError, WeightsError
from vitzoo.hub_http import quiet
from vitzoo.ids import MemberId, MemberRef
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.records import layout
from vitzoo.records.copies import CopyRecord, load_copy_record
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import check_file, link_or_copy, write_atomically
from vitzoo.records.json_files import write_json
from vitzoo.records.manifest import FileRecord, Manifest
from vitzoo.sources.hub import HubSource
from vitzoo.sources.source import ZooSource, refuse_link_out

_WORKERS = 8
_SILENT_WAIT = 1.0  # seconds
_HUB_FILES = PurePosixPath(".cache/huggingface")  # huggingface_hub's own, in the folder
_STAGES = {layout.MEMBER_JSON: 1, layout.ZOO_JSON.name: 2}  # every other file comes first
_LAST = Epochs("last")
_log = logging.getLogger(__name__)
_Files = dict[PurePosixPath, FileRecord]


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A planned download."""

    source: HubSource
    to: Path | None  # the folder that becomes a zoo; None for the Hugging Face cache
    files: _Files  # by their paths in the zoo
    copied: CopyRecord  # the chosen weights

    @property
    def target(self) -> Path:
        """The folder that the files are written to."""
        return self.source.root if self.to is None else self.to

    @property
    def bytes(self) -> int:
        """Size of all files. Equal files count once: a member's last epoch is its final weights."""
        return sum({file.sha256: file.size for file in self.files.values()}.values())

    @property
    def missing(self) -> int:
        """Size of the files that do not exist yet in the right size. Equal files count once."""
        existing = {
            file.sha256
            for relative, file in self.files.items()
            if os.path.isfile(path := self.target / relative) and os.path.getsize(path) == file.size
        }
        return sum({file.sha256: file.size for file in self.files.values() if file.sha256 not in existing}.values())


def find_weights(
    source: ZooSource, *, members: Iterable[MemberId] | None = None, epochs: Epochs = _LAST
) -> list[MemberRef]:
    """List the weights of some members (default: all) at some epochs (default: the final weights)."""
    refs = []
    for member in source.member_ids() if members is None else members:
        saved = sorted(source.saved_epochs(member), key=lambda epoch: (epoch is None, epoch))
        refs += [MemberRef(member, epoch=epoch) for epoch in epochs.of(saved)]
    if not refs:
        raise SelectionError(f'epochs "{epochs}" select no weights of any member', value=str(epochs))
    return refs


def plan_download(
    source: ZooSource,
    weights: Iterable[MemberRef],
    *,
    to: str | os.PathLike[str] | None = None,
    only_weights: bool = False,
) -> Download:
    """Plan a download from the manifest alone.

    Args:
        source: A zoo in a Hub repo.
        weights: Weights, such as a `vitzoo.Selection`. The other files of their members and of the zoo, and the
            records of their parents, are added.
        to: A folder that becomes a zoo; None for the Hugging Face cache, which loading uses.
        only_weights: Whether to leave the other files out, which the cache gets when they are needed.

    Raises:
        ConflictingArgumentsError: The zoo is a local folder, or ``to`` exists and is not a copy of the zoo.
        MemberNotFoundError, EpochNotFoundError: The zoo has no such weights.
        SelectionError: ``weights`` is empty.
    """
    if not isinstance(source, HubSource):
        raise ConflictingArgumentsError(f"{source.name} is a local folder, which cannot be downloaded")
    manifest = source.manifest
    refs = {layout.weights_file(ref.member, ref.epoch): ref for ref in weights}
    if not refs:
        raise SelectionError(f"No weights of {source.name} were selected", fix="Select at least one member.")
    for path, ref in refs.items():
        if layout.member_file(ref.member) not in manifest:
            raise source.no_member(ref.member)
        if path not in manifest:
            raise source.no_epoch(ref.member, ref.epoch)
    copied = CopyRecord(repo=source.repo, revision=source.commit, weights=tuple(map(str, refs)))
    content = manifest.to_bytes()
    files = {layout.MANIFEST: FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())}
    names = map(str, refs) if only_weights else manifest.files
    files |= {path: manifest.files[name] for name in names if copied.includes(path := PurePosixPath(name))}
    folder = None if to is None else Path(to).absolute()
    if folder is not None:
        _check_target(folder, manifest)
    return Download(source=source, to=folder, files=files, copied=copied)


def download(
    source: ZooSource,
    weights: Iterable[MemberRef],
    *,
    to: str | os.PathLike[str] | None = None,
    only_weights: bool = False,
    progress: bool = True,
) -> None:
    """Plan and run a download, with progress on standard error. See `plan_download` and `run_download`."""
    planned = plan_download(source, weights, to=to, only_weights=only_weights)
    with quiet(), ByteProgress("downloading") if progress else contextlib.nullcontext() as bar:
        run_download(planned, report=None if bar is None else bar.update)


def run_download(download: Download, *, report: Callable[[int, int], None] | None = None) -> None:
    """Download the missing files, and compare every file with its hash.

    A folder gets the manifest first, records after the weights that they describe, then copy.json if it is a partial
    copy, and zoo.json last. So an unfinished copy is not a zoo yet. Files that differ from the manifest are replaced.
    Downloads to one folder wait for each other. ``report`` takes the finished and the total bytes.

    Raises:
        ConflictingArgumentsError: The folder became a copy of another zoo.
        WeightsError: Files had a wrong hash twice. They were deleted, and the others are kept.
        RecordError: The repo lacks a file that its manifest names.
        HubError: The Hub cannot be reached, or refuses. The same call resumes.
        DownloadError: The disk is full.
    """
    with _open_target(download):
        needed, free = download.missing, shutil.disk_usage(download.target).free
        if needed > free:
            raise DownloadError(
                f"{download.target} has room for {in_bytes(free)}",
                expected=in_bytes(needed),
                fix="Make room, or choose fewer members (--where) or epochs (--epochs).",
                path=download.target,
            )
        stages: list[_Files] = [{}, {}, {}]
        for relative, file in download.files.items():
            stages[_STAGES.get(relative.name, 0)][relative] = file
        done, total, finished = 0, download.bytes, set()
        for files in stages:
            if download.to is not None and files is stages[-1]:
                _write_copy_record(download, download.to)
            wrong = []
            for relative, is_right in _fetch_all(download, files):
                if not is_right:
                    wrong.append(str(relative))
                if files[relative].sha256 not in finished:
                    done += files[relative].size
                finished.add(files[relative].sha256)
                if report is not None:
                    report(done, total)
            if wrong:
                raise WeightsError(
                    f"{len(wrong)} files of {download.source.name} had a wrong hash twice: "
                    f"{', '.join(sorted(wrong)[:5])}",
                    expected="the hashes of its manifest",
                    fix="The repo is damaged or was altered. These files were deleted; the others are kept.",
                    path=download.target / sorted(wrong)[0],
                )


@contextlib.contextmanager
def _open_target(download: Download) -> Iterator[None]:
    """Create the folder with its manifest, and keep other downloads out of it."""
    target, manifest = download.target, download.source.manifest
    with contextlib.ExitStack() as stack:
        try:
            target.mkdir(parents=True, exist_ok=True)
            if download.to is not None and os.access(target, os.W_OK):  # a finished copy may be read-only
                stack.enter_context(_lock(target))
                _check_target(target, manifest)
                if not (target / layout.MANIFEST).exists():
                    write_atomically(refuse_link_out(target / layout.MANIFEST, target), manifest.to_bytes())
        except OSError as error:
            if isinstance(error, VitZooError):
                raise
            raise DownloadError(
                f"{target} cannot be written: {error.strerror}",
                fix="Name another folder, or make this one writable.",
                path=target,
            ) from None
        yield


def _lock(folder: Path) -> contextlib.AbstractContextManager[object]:
    """Lock a folder, and wait while another download holds the lock."""
    path = refuse_link_out(folder / _HUB_FILES / "vitzoo.lock", folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, mode=0o664)
    try:
        return lock.acquire(timeout=_SILENT_WAIT)
    except Timeout:
        _log.warning("Another download writes to %s; this one waits for it.", folder)
        return lock.acquire()
    except NotImplementedError:
        _log.warning("%s is on a file system without locks: give no other download this folder.", folder)
        return contextlib.nullcontext()


def _write_copy_record(download: Download, folder: Path) -> None:
    """Add the downloaded weights to the copy's copy.json, and delete it once the copy is whole."""
    manifest, path = download.source.manifest, refuse_link_out(folder / layout.COPY, folder)
    weights = {name for name in manifest.files if layout.is_weights_name(PurePosixPath(name).name)}
    chosen = set(download.copied.weights)
    if path.is_file():
        chosen.update(load_copy_record(path, manifest).weights)
    elif (folder / layout.ZOO_JSON).is_file():
        return  # a whole copy
    if chosen >= weights:
        path.unlink(missing_ok=True)
    else:
        write_json(path, msgspec.structs.replace(download.copied, weights=tuple(sorted(chosen))))


def _fetch_all(download: Download, files: _Files) -> Iterator[tuple[PurePosixPath, bool]]:
    """Download files in threads, equal files once, and yield whether each has its hash."""
    equal: dict[str, list[PurePosixPath]] = {}
    for relative, file in files.items():
        equal.setdefault(file.sha256, []).append(relative)
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        futures = {pool.submit(_fetch, download, same[0]): same for same in equal.values()}
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
                yield relative, is_right and _fetch(download, relative)
    except BaseException as error:
        # An interrupt waits neither for running downloads nor for pauses that the Hub asked for.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def _fetch(download: Download, relative: PurePosixPath) -> bool:
    """Download a file unless it exists, at most twice, and return whether it has its hash."""
    for _ in range(2):
        path = download.source.fetch(relative, to=download.to)
        with contextlib.suppress(WeightsError):
            check_file(path, download.files[relative], by="the manifest", error=WeightsError)
            return True
        if download.to is None:
            download.source.forget(relative)
        else:
            path.unlink()
    return False


def _check_target(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder with other files than a copy of the zoo."""
    is_new = not os.path.lexists(folder) or (folder.is_dir() and all(map(_is_of_new_copy, os.listdir(folder))))
    known = folder / layout.MANIFEST  # read after the names, because another download may write it now
    if os.path.isfile(known) and known.read_bytes() == manifest.to_bytes():
        return
    if is_new and not os.path.lexists(known):
        return
    raise ConflictingArgumentsError(
        f"{folder} exists and is not a copy of this zoo", fix="Name an empty or a new folder."
    )


def _is_of_new_copy(name: str) -> bool:
    """Tell whether a download makes a file of this name before it writes the manifest."""
    return name == _HUB_FILES.parts[0] or name.startswith(f".{layout.MANIFEST}.")
