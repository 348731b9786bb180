"""A zoo in a Hub repo at one commit: with `vitzoo.hub_http` the library's only network code, beside the images'.

A revision is resolved once, by the download of zoo.json, which says the commit that it is of; everything after asks for
that commit, so that a zoo never changes under its reader and what is cached costs no request. Files lie in the
Hugging Face cache, where transformers finds them too. Publishing is `training.publish`'s business.
"""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_download, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from vitzoo.errors import (
    ConfigError,
    ConflictingArgumentsError,
    HubError,
    RecordError,
    VitZooError,
    ZooNotFoundError,
)
from vitzoo.hub_http import at, clean_token, explain, retry
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.manifest import Manifest
from vitzoo.sources.source import HubOptions, ZooSource, read_file_range, refuse_link_out

_COMMIT = re.compile(r"[0-9a-f]{40}")

T = TypeVar("T")


class HubSource(ZooSource):
    """A zoo in a Hub repo, pinned to the commit that its revision meant when this was made.

    Args:
        repo: ``org/name``.
        options: How it is reached.
        digest: What its manifest must hash to, where that is known.

    Raises:
        ZooNotFoundError: There is no such repo or revision, or it holds no zoo.
        HubError: The Hub cannot be reached, or refuses.
        AuthenticityError: It is not the zoo of that digest.
    """

    def __init__(self, repo: str, *, options: HubOptions, digest: str | None = None):
        if options.revision == "":
            raise ConflictingArgumentsError('revision="" names nothing: a branch, a tag or a commit, or leave it out.')
        token = options.token
        if token is not False and (given := token if isinstance(token, str) else get_token()) is not None:
            token = clean_token(given)
        self.repo = repo
        self._options = replace(options, token=token)
        self._revision = options.revision
        try:
            zoo_json = self._download(layout.ZOO_JSON)
        except RecordError:
            raise ZooNotFoundError(
                f'"{repo}" is no zoo{at(self._revision)}: it holds no {layout.ZOO_JSON}',
                fix="Check the name and the revision; a zoo whose publishing has not finished is none yet.",
                zoo=repo,
            ) from None
        self._revision = zoo_json.parent.name
        super().__init__(name=repo, root=zoo_json.parent, digest=digest)

    @property
    def commit(self) -> str:
        """The commit that everything is read at: 40 hex digits."""
        return self.root.name

    def path(self, relative: PurePosixPath) -> Path:
        """See `ZooSource.path`."""
        path = self._download(relative)
        self._authenticate(relative, path)
        return path

    def fetch(self, relative: PurePosixPath, *, to: Path | None = None) -> Path:
        """Download a file, into a folder or the cache, unless it is there.

        Raises:
            RecordError, HubError: As `path`.
        """
        if to is None:
            return self._download(relative)
        for place in (to / relative, to / ".cache/huggingface"):
            refuse_link_out(place, to)
        if (to / relative).is_file():
            return to / relative
        options = self._options
        self._retrying(
            relative,
            lambda: hf_hub_download(
                self.repo, str(relative), revision=self.commit, token=options.token, local_dir=to,
                local_files_only=options.local_files_only,
            ),
        )  # fmt: skip
        return to / relative

    @property
    def is_offline(self) -> bool:
        """Whether only the cache may be used."""
        return self._options.local_files_only or constants.is_offline_mode()

    def listed_files(self) -> list[str]:
        """Every file that the repo holds at this commit, those of no zoo among them.

        Raises:
            HubError: The Hub cannot be reached, or refuses.
        """

        def ask() -> list[str]:
            entries = HfApi().list_repo_tree(self.repo, recursive=True, revision=self.commit, token=self._options.token)
            return [entry.path for entry in entries if isinstance(entry, RepoFile)]

        return self._retrying("The list of files", ask)

    def is_cached(self, relative: PurePosixPath) -> bool:
        """Whether a file is in the cache already."""
        return (self.root / relative).is_file()

    def forget(self, relative: PurePosixPath) -> None:
        """Take a file out of the cache, so that it is downloaded again."""
        path = self.root / relative
        blob = Path(os.path.realpath(path))
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)

    def local_file(self, relative: PurePosixPath) -> Path | None:
        """See `ZooSource.local_file`; with a digest every file is downloaded, for a part of a file proves nothing."""
        if self.digest is not None or self.is_cached(relative) or self.is_offline:
            return self.path(relative)
        return None

    def read_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        """See `ZooSource.read_range`: of the cached file where there is one, else one request for just these bytes."""
        local = self.local_file(relative)
        if local is not None:
            return read_file_range(local, start, stop)
        return self._retrying(relative, lambda: self._get_range(relative, start, stop))

    def _get_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        url = hf_hub_url(self.repo, str(relative), revision=self.commit)
        headers = build_hf_headers(token=self._options.token)
        headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            content_range = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
            if response.status_code != 206 or content_range is None or int(content_range[1]) != start:
                raise HubError(
                    f"{self.repo} gave no part of {relative}, though one was asked for (status {response.status_code})",
                    fix="Download the file instead.",
                    repo=self.repo,
                    status=response.status_code,
                )
            last, size = int(content_range[2]), int(content_range[3])
            parts, length = [], 0
            for part in response.iter_raw():
                parts.append(part)
                length += len(part)
                if length > stop - start:
                    break
        if last != min(stop, size) - 1 or length != last + 1 - start:
            raise OSError(f"{length} bytes came where {min(stop, size) - start} were expected")  # tried again
        return b"".join(parts), size

    @cached_property
    def manifest(self) -> Manifest:
        """manifest.json, which every zoo on the Hub has. See `ZooSource.manifest`."""
        manifest = super().manifest  # raises RecordError if the repo has none
        if manifest is None:
            raise RuntimeError(f"{self.repo}: path() returned a missing file")
        return manifest

    def member_ids(self) -> list[MemberId]:
        """List the members in the manifest. See `ZooSource.member_ids`."""
        return self.manifest.member_ids

    def saved_epochs(self, member: MemberId) -> set[int | None]:
        """List the epochs of the weights files in the manifest. See `ZooSource.saved_epochs`."""
        return set(self.manifest.weights_sizes(member))

    def check_blob(self, relative: PurePosixPath) -> None:
        """Compare a cached file with the name of its blob, which is the hash that the Hub gave it.

        Raises:
            ConfigError: The file was altered.
        """
        path = self.path(relative)
        if not path.is_symlink():  # a file system without links keeps no hash
            return
        expected, content = Path(os.readlink(path)).name, path.read_bytes()
        if len(expected) == 40:  # git's
            content = b"blob %d\0" % len(content) + content
        found = hashlib.new("sha1" if len(expected) == 40 else "sha256", content, usedforsecurity=False).hexdigest()
        if found != expected:
            raise ConfigError(
                f"{path} was altered: its hash is not the Hub's",
                fix="Get the file again (force_download=True).",
                path=path,
            )

    def _download(self, relative: PurePosixPath) -> Path:
        options = self._options
        path = self._retrying(
            relative,
            lambda: hf_hub_download(
                self.repo,
                str(relative),
                revision=self._revision,
                token=options.token,
                cache_dir=None if options.cache_dir is None else os.fspath(options.cache_dir),
                local_files_only=options.local_files_only,
                force_download=options.force_download,
            ),
        )
        return refuse_link_out(Path(path), self._snapshot(Path(path), relative))

    def _snapshot(self, path: Path, relative: PurePosixPath) -> Path:
        root = path.parents[len(relative.parts) - 1]
        if not _COMMIT.fullmatch(root.name):
            raise HubError(
                f"{self.repo}{at(self._revision)} came as {root}, which is no commit. Is HF_ENDPOINT a Hub?",
                repo=self.repo,
                status=None,
            )
        return root

    def _retrying(self, relative: PurePosixPath | str, ask: Callable[[], T]) -> T:
        """Ask the Hub as `vitzoo.hub_http.retry` does; the other errors become errors of ours."""

        def refuse(error: Exception) -> VitZooError:
            offline = self.is_offline
            return explain(error, what=str(relative), repo=self.repo, revision=self._revision, offline=offline)

        return retry(ask, repo=self.repo, refuse=refuse)
