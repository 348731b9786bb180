"""List and download single files of a published model at one commit of a Hub repo, into the Hugging Face cache.

See `vitzoo.sources.hub` for zoos, and `vitzoo.hub_http` for retries and errors.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, constants, get_token, hf_hub_download
from huggingface_hub.hf_api import RepoFile

from vitzoo.errors import HubError, RecordError, VitZooError, shown
from vitzoo.hub_http import COMMIT, MOST_BYTES, at, clean_token, explain, retry
from vitzoo.records.layout import weights_name
from vitzoo.sources.source import refuse_link_out

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_WEIGHTS = (".safetensors", *_PICKLES)


def fetch_published(repo: str, commit: str, *, files: Iterable[str]) -> Path:
    """Download files of a published model, unless they are in the cache.

    Args:
        repo: Model repo of the Hub.
        commit: Commit of the repo, 40 hex digits. A branch or a tag may move, and is refused.
        files: Paths in the repo. Of weights, only safetensors are read.

    Returns:
        The folder that has the files.

    Raises:
        HubError: The commit is not a commit, or the Hub does not answer.
        ZooNotFoundError: The repo does not exist, is gated or private, or has no such commit.
        NotCachedError: Only the cache may be used (``HF_HUB_OFFLINE``), and a file is not in it.
        RecordError: The repo has no such file. If it has pickles in its place, the error names one.
    """
    if not COMMIT.fullmatch(commit):
        raise HubError(
            f"{repo}: {shown(commit)} is not a commit",
            expected="40 hex digits",
            fix=f"Copy it from https://huggingface.co/{repo}/commits/main.",
            repo=repo,
        )
    token = get_token()
    fixed: dict[str, Any] = {"revision": commit, "token": None if token is None else clean_token(token)}
    folder = Path()
    for name in files:
        relative = PurePosixPath(name)
        download = partial(hf_hub_download, repo, name, **fixed)
        try:
            path = Path(_ask(download, repo, commit, what=name))
        except RecordError as error:
            if name != weights_name():
                raise
            listed = _ask(partial(HfApi().list_repo_files, repo, **fixed), repo, commit, what="The list of files")
            pickles = [other for other in listed if other.endswith(_PICKLES)]
            raise RecordError(
                f"{repo}{at(commit)} has no {name}" + (f", but {pickles[0]}" if pickles else ""),
                expected="weights in safetensors: other files may run code, and are not read",
                fix="Name another commit or repo, or convert the weights in a repo of your own.",
                path=Path(name),
            ) from error
        folder = path.parents[len(relative.parts) - 1]
        refuse_link_out(path, folder)
    return folder


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFolder:
    """A folder of a model repo at one commit.

    Args:
        repo: The repo.
        commit: The commit, 40 hex digits.
        files: Names of the files in the folder itself to their bytes.
        folder: The folder's path in the repo; empty for the repo itself.
    """

    repo: str
    commit: str
    files: Mapping[str, int]
    folder: str = ""

    def fetch(self, name: str) -> Path:
        """Download a file, unless it is in the cache. Raises as `fetch_published`."""
        path = f"{self.folder}/{name}".removeprefix("/")
        return fetch_published(self.repo, self.commit, files=[path]) / path


def list_published(repo: str, *, revision: str | None = None, folder: str = "") -> PublishedFolder:
    """List the files of a folder in a model repo, at the commit that a revision has now.

    Args:
        repo: Model repo of the Hub.
        revision: A branch, tag or commit; None for the default branch.
        folder: Path of a folder in the repo.

    Raises:
        ZooNotFoundError: The repo does not exist, is gated or private, or has no such revision.
        RecordError: The repo has no such folder.
        HubError: The Hub does not answer.
    """
    token = get_token()
    fixed: dict[str, Any] = {"token": None if token is None else clean_token(token)}
    asked = partial(HfApi().model_info, repo, revision=revision, **fixed)
    commit = str(_ask(asked, repo, revision, what="Its commit").sha)
    if not COMMIT.fullmatch(commit):
        raise HubError(f"{repo}: the Hub names the commit {shown(commit)}", expected="40 hex digits", repo=repo)

    def listed() -> list[Any]:
        return list(HfApi().list_repo_tree(repo, folder or None, revision=commit, **fixed))

    entries = _ask(listed, repo, revision, what=folder or "The list of files")
    names = {PurePosixPath(entry.path).name: entry.size for entry in entries if isinstance(entry, RepoFile)}
    return PublishedFolder(repo=repo, commit=commit, files=names, folder=folder)


def _ask(ask: Any, repo: str, commit: str | None, *, what: str) -> Any:
    def refuse(error: Exception) -> VitZooError:
        return explain(error, what=what, repo=repo, revision=commit, offline=constants.is_offline_mode())

    return retry(ask, repo=repo, refuse=refuse, most=math.inf if what.endswith(_WEIGHTS) else MOST_BYTES)
