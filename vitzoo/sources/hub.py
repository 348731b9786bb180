"""Read a zoo from a Hub repo, at one commit.

The download of zoo.json resolves the revision to a commit. Every later request names that commit, so a zoo never
changes while it is read, and cached files cost no request. The files are in the Hugging Face cache, which transformers
uses too. See `vitzoo.hub_http` for retries and errors, and `training.publish` for publishing.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_download, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from vitzoo.errors import ConfigError, ConflictingArgumentsError, HubError, RecordError, VitZooError, ZooNotFoundError
from vitzoo.hub_http import MOST_BYTES, at, clean_token, explain, retry
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.manifest import Manifest
from vitzoo.sources.source import HubOptions, ZooSource, read_file_range, refuse_link_out

T = TypeVar("T")


class HubSource(ZooSource):
    """A zoo in a Hub repo ``org/name``, pinned to the commit of its revision at the time of opening."""

    def __init__(self, repo: str, *, options: HubOptions, digest: str | None = None):
        revision = options.revision
        if revision is not None and (not revision or ".." in revision or revision.startswith("/")):
            raise ConflictingArgumentsError(  # git allows none of these, and the cache has a file of this name
                f"revision={json.dumps(revision)} is not a revision",
                expected="a branch, a tag, a commit or None (the default branch)",
            )
        self.repo = repo
        cache = Path(options.cache_dir or constants.HF_HUB_CACHE)
        if not cache.is_absolute():  # a later change of the working directory has no effect
            options = replace(options, cache_dir=cache.expanduser().absolute())
        self._options = options
        self._revision = options.revision
        try:
            zoo_json = self._download(layout.ZOO_JSON)
        except RecordError:
            raise ZooNotFoundError(
                f'"{repo}"{at(self._revision)} is not a zoo: it has no {layout.ZOO_JSON}',
                fix="Check the name and the revision, or wait until the zoo's publication is finished.",
                zoo=repo,
            ) from None
        self._revision = zoo_json.parent.name
        super().__init__(name=repo, root=zoo_json.parent, digest=digest)

    @property
    def _token(self) -> str | bool | None:
        """The given token, or the environment's at this moment, which is never kept."""
        token = self._options.token
        given = token if isinstance(token, str) else get_token() if token is not False else None
        return token if given is None else clean_token(given)

    @property
    def commit(self) -> str:
        """The commit that is read, 40 hex digits."""
        return self.root.name

    def path(self, relative: PurePosixPath) -> Path:
        """Return the path of a file in the cache, downloaded if needed. See `ZooSource.path`."""
        path = self._download(relative)
        self._authenticate(relative, path)
        return path

    def fetch(self, relative: PurePosixPath, *, to: Path | None = None) -> Path:
        """Download a file to a folder or the cache, unless it exists."""
        if to is None:
            return self._download(relative)
        for path in (to / relative, to / ".cache/huggingface"):
            refuse_link_out(path, to)
        if not (to / relative).is_file():
            self._call_download(relative, local_dir=to)
        return to / relative

    @property
    def is_offline(self) -> bool:
        """True if only the cache may be used."""
        return self._options.local_files_only or constants.is_offline_mode()

    def listed_files(self) -> list[str]:
        """List every file of the repo at this commit, including files that do not belong to the zoo."""
        return self._retrying(
            "The list of files",
            lambda: HfApi().list_repo_files(self.repo, revision=self.commit, token=self._token),
        )

    def forget(self, relative: PurePosixPath) -> None:
        """Delete a file from the cache, so that it is downloaded again."""
        path = self.root / relative
        blob = Path(os.path.realpath(path))
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)

    def local_file(self, relative: PurePosixPath) -> Path | None:
        """Return a cached file's path, or None. With a digest, download the whole file to compare its hash."""
        if self.digest is not None or (self.root / relative).is_file() or self.is_offline:
            return self.path(relative)
        return None

    def read_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        """Read a range of a cached file, or request just these bytes. See `ZooSource.read_range`."""
        local = self.local_file(relative)
        if local is not None:
            return read_file_range(local, start, stop)
        most = stop - start + MOST_BYTES  # the server's own words beside the range
        return self._retrying(relative, lambda: self._get_range(relative, start, stop), most=most)

    def _get_range(self, relative: PurePosixPath, start: int, stop: int) -> tuple[bytes, int]:
        url = hf_hub_url(self.repo, str(relative), revision=self.commit)
        headers = build_hf_headers(token=self._token)
        headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            content_range = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
            if response.status_code != 206 or content_range is None or int(content_range[1]) != start:
                raise HubError(
                    f"The Hub answered a request for a range of {relative} with status {response.status_code}",
                    expected=f"status 206 and the range from byte {start}",
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
            raise OSError(f"received {length} bytes, expected {min(stop, size) - start}")  # retried
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

    def check_blob(self, relative: PurePosixPath, content: bytes) -> None:
        """Raise a ConfigError if a cached file's content differs from its blob's name, which is its hash on the Hub."""
        path = self.path(relative)
        if not path.is_symlink():  # the cache has no blobs on a file system without links
            return
        expected = Path(os.readlink(path)).name
        if len(expected) == 40:  # git's
            content = b"blob %d\0" % len(content) + content
        digest = hashlib.new("sha1" if len(expected) == 40 else "sha256", content, usedforsecurity=False).hexdigest()
        if digest != expected:
            raise ConfigError(
                f"{path} was altered: its hash is {digest}",
                expected=f"the Hub's, {expected}",
                fix="Get the file again (force_download=True).",
                path=path,
            )

    def _download(self, relative: PurePosixPath) -> Path:
        path = self._call_download(
            relative, cache_dir=self._options.cache_dir, force_download=self._options.force_download
        )
        return refuse_link_out(path, path.parents[len(relative.parts) - 1])  # the folder of the commit

    def _call_download(self, relative: PurePosixPath, **target: Any) -> Path:
        options = self._options
        fixed: dict[str, Any] = {"token": self._token, "local_files_only": options.local_files_only, **target}
        return self._retrying(
            relative,
            lambda: Path(hf_hub_download(self.repo, str(relative), revision=self._revision, **fixed)),
            most=math.inf if layout.is_weights_name(relative.name) else MOST_BYTES,
        )

    def _retrying(self, relative: PurePosixPath | str, ask: Callable[[], T], *, most: float = MOST_BYTES) -> T:
        """Call the Hub with retries, and convert errors into VitZooErrors."""

        def refuse(error: Exception) -> VitZooError:
            offline = self.is_offline
            return explain(error, what=str(relative), repo=self.repo, revision=self._revision, offline=offline)

        return retry(ask, repo=self.repo, refuse=refuse, most=most)
