"""Brings two repos to a publication: look, send what is missing, look again, until nothing is.

    commits 1..n   what the repo has no file of yet, whole members, a bounded number of files each
    last commit    what replaces a file (a member trained again), cards, tables, zoo.json and manifest.json
    then           the dataset repo in one commit, whose card names the model repo's; both are tagged alike

At no commit does the manifest name a file that is not there or is another one: readers list what it names, so nobody
sees half a zoo. Every commit names its parent, so two publishers at once make one of them look again. The last look is
the verification: every size and hash as the Hub lists them at the final commit.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from training.publish.checks import (
    GITATTRIBUTES,
    check_dataset,
    check_model,
    check_private,
    check_tag,
    check_visibility,
)
from training.publish.plan import PlannedFile, Publication
from training.publish.progress import Progress
from training.publish.remote import (
    AGAIN,
    TRIES,
    Addition,
    BranchMoved,
    Look,
    Remote,
    find_token,
    pause,
)
from vitzoo import layout
from vitzoo.errors import HubError, TrainingError
from vitzoo.hub_http import quiet
from vitzoo.ids import MemberId

FILES_A_COMMIT = 500
_FILES_A_BATCH = 32  # stored together; a kill loses what is in flight, never what was stored
_BYTES_A_BATCH = 2**28


# Refuses a repo that holds something else than the publication.
_Check = Callable[[Publication, Remote, Look], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a publication has become.

    Args:
        url: Of the model repo.
        commit: There.
        metadata_url: Of the dataset repo.
        metadata_commit: There.
        digest: Of the manifest.
        commits: How many were made in both; 0 where everything was there.
        left_alone: Files in the model repo that this zoo does not name.
    """

    url: str
    commit: str
    metadata_url: str
    metadata_commit: str
    digest: str
    commits: int
    left_alone: int


def publish(
    publication: Publication,
    *,
    private: bool = False,
    token: str | None = None,
    files_a_commit: int = FILES_A_COMMIT,
) -> Published:
    """Bring both repos to a publication; what is there already is not sent again.

    Args:
        publication: What is published.
        private: Whether repos that are made are private.
        token: One that may write; None for the environment's or the login's.
        files_a_commit: Most files of a commit; a member is never split.

    Raises:
        TrainingError: A repo holds something else, or the tag another zoo; nothing was sent.
        HubError: The Hub cannot be reached, or refuses.
        WeightsError: A file is not what its record says.
    """
    tag = publication.tag
    token = find_token() if token is None else token
    check_private(publication, token)
    progress = Progress()
    with _held(publication.source.root), quiet(), progress:
        model = Remote(publication.to, "model", token=token, say=progress.say)
        dataset = Remote(publication.metadata_to, "dataset", token=token, say=progress.say)
        targets = [
            (model, check_model, publication.closing[-1:]),
            (dataset, check_dataset, publication.dataset_files("")[:-1]),
        ]
        missing = []
        for remote, check, marks in targets:
            found = remote.is_private()
            check_visibility(remote, is_private=found, wanted=private)
            if found is None:
                missing.append(remote)
                continue
            look = remote.look()
            check(publication, remote, look)
            check_tag(remote, look, tag, marks)
        for remote in missing:
            remote.create(private=private)
        pusher = _Pusher(publication, progress, files_a_commit=files_a_commit)
        at_model = pusher.push(model, publication.members, publication.closing, check_model)
        at_dataset = pusher.push(dataset, {}, publication.dataset_files(at_model.head), check_dataset)
        for (remote, _, marks), look in zip(targets, (at_model, at_dataset), strict=True):
            if tag is not None and tag not in look.tags:
                remote.tag(tag, commit=look.head)
                check_tag(remote, remote.look(), tag, marks)  # somebody else's may have come first
    named = {*publication.manifest.files, str(layout.MANIFEST), GITATTRIBUTES}
    return Published(
        url=model.url,
        commit=at_model.head,
        metadata_url=dataset.url,
        metadata_commit=at_dataset.head,
        digest=publication.manifest.digest,
        commits=pusher.commits,
        left_alone=sum(path not in named for path in at_model.files),
    )


class _Pusher:
    """Sends files; knows which contents are stored, and how many commits were made."""

    def __init__(self, publication: Publication, progress: Progress, *, files_a_commit: int):
        self.commits = 0
        self._publication = publication
        self._progress = progress
        self._files_a_commit = files_a_commit
        self._stored: set[str] = set()

    def push(
        self,
        remote: Remote,
        members: Mapping[MemberId, Sequence[PlannedFile]],
        closing: Sequence[PlannedFile],
        check: _Check,
    ) -> Look:
        """Make a repo hold all files.

        Returns:
            The look that found every one of them there, by size and hash.
        """
        files = [file for member in members.values() for file in member] + list(closing)
        done, fewest, stalled = None, len(files) + 1, 0
        while True:
            look = remote.look()
            check(self._publication, remote, look)
            missing = [file for file in files if not look.holds(file)]
            if not missing:
                return look
            if look.head == done:
                some = ", ".join(file.path for file in missing[:8]) + (", ..." if len(missing) > 8 else "")
                raise HubError(
                    f"{remote.repo} has other files at {look.head} than were sent: {some}. Publish again.",
                    repo=remote.repo,
                    status=None,
                )
            stalled = 0 if len(missing) < fewest else stalled + 1
            fewest = min(fewest, len(missing))
            if stalled >= TRIES:
                raise HubError(
                    f"{remote.repo} is changed by somebody else all the time. Agree on who publishes. {AGAIN}",
                    repo=remote.repo,
                    status=None,
                )
            if stalled:
                pause(stalled)
            try:
                done = self._send(remote, look, {file.path for file in missing}, members, closing)
            except BranchMoved:
                done = None

    def _send(
        self,
        remote: Remote,
        look: Look,
        missing: set[str],
        members: Mapping[MemberId, Sequence[PlannedFile]],
        closing: Sequence[PlannedFile],
    ) -> str:
        """Send what is missing.

        Returns:
            The last commit.

        Raises:
            BranchMoved: Somebody else's commit came first.
        """
        new, replaced = {}, {}
        for member, files in members.items():
            lacking = [file for file in files if file.path in missing]
            # A member that replaces a file is seen with the manifest that names the new one, not before.
            if lacking:
                (replaced if any(file.path in look.files for file in lacking) else new)[member] = lacking
        last = [file for file in closing if file.path in missing]
        everything = [*(file for files in (*new.values(), *replaced.values()) for file in files), *last]
        self._progress.begin(remote.repo, size=sum(file.size for file in everything), files=len(everything))
        head = look.head
        for group in _bounded(new, self._files_a_commit):
            message = f"Add {next(iter(group))}" + (f" and {len(group) - 1} more members" if len(group) > 1 else "")
            head = self._commit(remote, list(group.values()), message=message, parent=head)
        if replaced or last:
            message = f"Publish {self._publication.manifest.digest}"
            head = self._commit(remote, [*replaced.values(), last], message=message, parent=head)
        return head

    def _commit(self, remote: Remote, groups: Sequence[Sequence[PlannedFile]], *, message: str, parent: str) -> str:
        """Store the large files of some members in small batches, then make the commit that names them."""
        every: list[Addition] = []
        waiting: list[tuple[PlannedFile, Addition]] = []

        def store() -> None:
            if waiting:
                remote.upload([addition for _, addition in waiting])
                self._progress.sent(sum(file.size for file, _ in waiting))
                waiting.clear()

        for files in groups:
            additions = [
                remote.addition(file) for file in files
            ]  # a member's hashes are all compared before it is sent
            every += additions
            for file, addition in zip(files, additions, strict=True):
                # Equal files, such as a member's last and its final weights, are stored once; the commit names both.
                if isinstance(file.content, Path) and file.sha256 not in self._stored:
                    self._stored.add(file.sha256)
                    waiting.append((file, addition))
                    size = sum(file.size for file, _ in waiting)
                    if len(waiting) >= _FILES_A_BATCH or size >= _BYTES_A_BATCH:
                        store()
        store()
        commit = remote.commit(every, message=message, parent=parent)
        self.commits += 1
        self._progress.committed([file for files in groups for file in files])
        return commit


def _bounded(
    members: Mapping[MemberId, Sequence[PlannedFile]], most: int
) -> Iterator[dict[MemberId, Sequence[PlannedFile]]]:
    """Whole members together, as many as a commit may have files."""
    group: dict[MemberId, Sequence[PlannedFile]] = {}
    for member, files in members.items():
        if group and sum(map(len, group.values())) + len(files) > most:
            yield group
            group = {}
        group[member] = files
    if group:
        yield group


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """Hold the zoo's folder against a second publisher, where it is one that is trained in."""
    locks = root / layout.TRAINING / "locks"
    if not (locks.is_dir() and os.access(locks, os.W_OK)):
        yield
        return
    lock = FileLock(locks / "publish.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(f"Another process is publishing {root}. Wait for it to end; nothing was sent.") from None
    try:
        yield
    finally:
        lock.release()
