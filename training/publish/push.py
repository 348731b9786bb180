"""Brings two repos to a publication: look, send what is missing, look again, until nothing is.

The model repo first, in the commits that `training.publish.commits` plans, then the dataset repo in one, whose card
names the model repo's; both are tagged alike. Before anything is sent the zoo is verified, unless nothing is missing.

At no commit does the manifest name a file that is not there or is another one: readers list what it names, so nobody
sees half a zoo. Every commit names its parent, so two publishers at once make one of them look again. The last look is
the verification: every size and hash as the Hub lists them at the final commit.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from training.lease import LeaseHeld, acquire
from training.publish.checks import (
    GITATTRIBUTES,
    check_dataset,
    check_model,
    check_private,
    check_tag,
    check_visibility,
)
from training.publish.commits import Commit, plan_commits
from training.publish.files import PlannedFile
from training.publish.look import Look
from training.publish.plan import Publication
from training.publish.progress import Progress
from training.publish.remote import (
    AGAIN,
    TRIES,
    Addition,
    BranchMoved,
    Remote,
    find_token,
    pause,
)
from training.publish.soundness import check_sound
from training.publish.verified import Verified
from training.workspace import leases_root
from vitzoo.errors import HubError, TrainingError
from vitzoo.hub_http import quiet
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.tables.cards import parse_published

FILES_A_COMMIT = 500
_FILES_A_BATCH = 32  # stored together; a kill loses what is in flight, never what was stored
_BYTES_A_BATCH = 2**28


class AlreadyPublishing(TrainingError):
    """Another process publishes the zoo; when it has ended, this may do."""


# Refuses a repo that holds something else than the publication.
_Check = Callable[[Publication, Remote, Look], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PushResult:
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
    progress: Progress | None = None,
    verified: Verified | None = None,
) -> PushResult:
    """Bring both repos to a publication; what is there already is not sent again.

    Args:
        publication: What is published.
        private: Whether repos that are made are private.
        token: One that may write; None for the environment's or the login's.
        files_a_commit: Most files of a commit; a member is never split.
        progress: Where it is shown; None for standard error.
        verified: What this process verified before, to be added to: that is not read again.

    Raises:
        AlreadyPublishing: Another process publishes the zoo.
        TrainingError: The zoo is not sound, a repo holds something else, or the tag another zoo: nothing was sent. Or a
            file cannot be read.
        HubError: The Hub cannot be reached, or refuses.
        WeightsError: A file is not what its record says.
    """
    tag = publication.tag
    token = find_token(token)
    check_private(publication, token)
    progress = Progress() if progress is None else progress
    with _held(publication.source.root), quiet(), progress:
        model = Remote(publication.to, "model", token=token, say=progress.say)
        dataset = Remote(publication.metadata_to, "dataset", token=token, say=progress.say)
        targets = [
            (model, check_model, publication.closing[-1:]),
            (dataset, check_dataset, publication.dataset_files("")[:-1]),
        ]
        looks = [_first_look(publication, *target, private=private) for target in targets]
        pusher = _Pusher(publication, progress, files_a_commit=files_a_commit)
        if looks[0] is None or pusher.plan(looks[0], publication.members, publication.closing):
            progress.start("verifying")
            check_sound(publication, progress.update, verified)
        progress.start("publishing")
        for (remote, _, _), look in zip(targets, looks, strict=True):
            if look is None:
                remote.create(private=private)
        at_model = pusher.push(model, publication.members, publication.closing, check_model)
        commit = at_model.head
        if not pusher.commits and looks[1] is not None:
            commit = _described_commit(publication, model, dataset, looks[1]) or commit
        at_dataset = pusher.push(dataset, {}, publication.dataset_files(commit), check_dataset)
        for (remote, _, marks), look in zip(targets, (at_model, at_dataset), strict=True):
            if tag is not None and tag not in look.tags:
                remote.tag(tag, commit=look.head)
                check_tag(remote, remote.look(), tag, marks)  # somebody else's may have come first
    named = {*publication.manifest.files, str(layout.MANIFEST), GITATTRIBUTES}
    return PushResult(
        url=model.url,
        commit=at_model.head,
        metadata_url=dataset.url,
        metadata_commit=at_dataset.head,
        digest=publication.manifest.digest,
        commits=pusher.commits,
        left_alone=sum(path not in named for path in at_model.files),
    )


def _first_look(
    publication: Publication, remote: Remote, check: _Check, marks: Sequence[PlannedFile], *, private: bool
) -> Look | None:
    """A repo before anything is sent, with every refusal that it calls for; None where it is to be made."""
    found = remote.is_private()
    check_visibility(remote, is_private=found, wanted=private)
    if found is None:
        return None
    look = remote.look()
    check(publication, remote, look)
    check_tag(remote, look, publication.tag, marks)
    return look


def _described_commit(publication: Publication, model: Remote, dataset: Remote, look: Look) -> str | None:
    """The commit that the tables' card names already, where the model repo has this very zoo there.

    Its branch may have gone on since, without a change of the zoo: somebody edited .gitattributes, say.
    """
    card = str(layout.README)
    if card not in look.files:
        return None
    described = parse_published(dataset.read(card, commit=look.head).decode(errors="replace"))
    manifest = publication.closing[-1]
    if described is None or (described.repo, described.digest) != (publication.to, publication.manifest.digest):
        return None
    found = model.files_at(described.commit, [manifest.path])
    return described.commit if manifest.path in found and found[manifest.path].holds(manifest) else None


class _Pusher:
    """Sends files; knows which contents are stored, and how many commits were made."""

    def __init__(self, publication: Publication, progress: Progress, *, files_a_commit: int):
        self.commits = 0
        self._publication = publication
        self._progress = progress
        self._files_a_commit = files_a_commit
        self._stored: set[str] = set()

    def plan(
        self, look: Look, members: Mapping[MemberId, Sequence[PlannedFile]], closing: Sequence[PlannedFile]
    ) -> list[Commit]:
        """The commits that a repo lacks; see `training.publish.commits.plan_commits`."""
        return plan_commits(self._publication, look, members, closing, files_a_commit=self._files_a_commit)

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
        done, fewest, stalled = None, None, 0
        while True:
            look = remote.look()
            check(self._publication, remote, look)
            commits = self.plan(look, members, closing)
            missing = [file for commit in commits for file in commit.files]
            if not missing:
                return look
            if look.head == done:
                some = ", ".join(file.path for file in missing[:8]) + (", ..." if len(missing) > 8 else "")
                raise HubError(
                    f"{remote.repo} has other files at {look.head} than were sent: {some}. Publish again.",
                    repo=remote.repo,
                    status=None,
                )
            stalled = 0 if fewest is None or len(missing) < fewest else stalled + 1
            fewest = len(missing) if fewest is None else min(fewest, len(missing))
            if stalled >= TRIES:
                raise HubError(
                    f"{remote.repo} is changed by somebody else all the time. Agree on who publishes. {AGAIN}",
                    repo=remote.repo,
                    status=None,
                )
            if stalled:
                pause(stalled)
            try:
                done = self._send(remote, look.head, commits)
            except BranchMoved:
                done = None

    def _send(self, remote: Remote, head: str, commits: Sequence[Commit]) -> str:
        """Make commits, one after the other, from a first parent on.

        Returns:
            The last one.

        Raises:
            BranchMoved: Somebody else's came first.
        """
        files = [file for commit in commits for file in commit.files]
        self._progress.begin(remote.repo, size=sum(file.size for file in files), files=len(files))
        for commit in commits:
            head = self._commit(remote, commit, parent=head)
        return head

    def _commit(self, remote: Remote, commit: Commit, *, parent: str) -> str:
        """Store the large files of some members in small batches, then make the commit that names them."""
        every: list[Addition] = []
        waiting: list[tuple[PlannedFile, Addition]] = []

        def store() -> None:
            if waiting:
                remote.upload([addition for _, addition in waiting])
                self._progress.sent(sum(file.size for file, _ in waiting))
                waiting.clear()

        for files in commit.groups:
            additions = [remote.addition(file) for file in files]  # all hashes of a member, before any of it is sent
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
        made = remote.commit(every, message=commit.message, parent=parent)
        self.commits += 1
        self._progress.committed(commit.files)
        return made


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """Hold the zoo's folder against a second publisher, where it is one that is trained in."""
    leases = leases_root(root)
    if not (leases.is_dir() and os.access(leases, os.W_OK)):
        yield
        return
    try:
        held = acquire(leases, "publish")
    except LeaseHeld as error:
        message = f"Another process is publishing {root}: {error.holder}. Wait for it to end; nothing was sent."
        raise AlreadyPublishing(message) from None
    try:
        yield
    finally:
        held.release()
