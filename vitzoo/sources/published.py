"""Download single files of a published model at one commit of a Hub repo, into the Hugging Face cache.

See `vitzoo.sources.hub` for zoos, and `vitzoo.hub_http` for retries and errors.
"""

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, constants, get_token, hf_hub_download

from vitzoo.errors import HubError, RecordError, VitZooError, shown
from vitzoo.hub_http import COMMIT, MOST_BYTES, at, clean_token, explain, retry
from vitzoo.records.layout import is_weights_name, weights_name
from vitzoo.sources.source import refuse_link_out

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


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


def _ask(ask: Any, repo: str, commit: str, *, what: str) -> Any:
    def refuse(error: Exception) -> VitZooError:
        return explain(error, what=what, repo=repo, revision=commit, offline=constants.is_offline_mode())

    return retry(ask, repo=repo, refuse=refuse, most=math.inf if is_weights_name(what) else MOST_BYTES)
