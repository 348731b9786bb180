"""Publish: compare both repos with the plan, send the missing files, and compare again until nothing is missing.

The model repo comes first: its members' files in commits of up to 500, then one closing commit with the cards, the
tables, zoo.json and manifest.json. The dataset repo follows in one commit; its card names the model repo's commit. Both
get the same tag. The members are verified before the first upload.

The manifest never names a missing or different file. Readers list only the files that it names, so they never see half
a zoo. A kill at any request loses no stored file, and the next publication continues from there. Every commit names its
parent, so of two publishers at once one must compare again. The last comparison is the proof: the Hub lists every file
at the final commit with its size and hash.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.lease import Lease, LeaseHeld, acquire
from training.publish.checks import (
    GITATTRIBUTES,
    check_dataset,
    check_members,
    check_recipe,
    check_sound,
    check_tag,
)
from training.publish.plan import PlannedFile, Publication, check_repo_names, some
from training.publish.remote import AGAIN, TRIES, BranchMovedError, Remote, RemoteTree, find_token
from training.workspace import leases_root
from vitzoo.errors import HubError, TrainingError
from vitzoo.hub_http import pause, quiet
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.records import ZooRecord, layout

FILES_A_COMMIT = 500
_TRIES_BEFORE_TRAINING = 3
_FILES_AN_UPLOAD = 64
_BYTES_AN_UPLOAD = 10**9


class AlreadyPublishingError(TrainingError):
    """Another process publishes the zoo: the same command may succeed later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushResult:
    """A finished publication.

    Args:
        url: Page of the model repo.
        commit: Its commit.
        metadata_url: Page of the dataset repo.
        metadata_commit: Its commit.
        digest: Digest of the manifest.
        commits: Number of commits made in both repos; 0 if nothing was missing.
        left_alone: Number of files in the model repo that are not in the manifest.
    """

    url: str
    commit: str
    metadata_url: str
    metadata_commit: str
    digest: str
    commits: int
    left_alone: int


def check_target(record: ZooRecord, *, to: str, private: bool, say: Callable[[str], None]) -> None:
    """Check, before anything is trained, that a zoo can be published, and create the repos that do not exist.

    Args:
        record: The zoo's zoo.json.
        to: The model repo.
        private: Whether new repos are private.
        say: Called with a line about a pause.

    Raises:
        TrainingError: ``to`` is not a Hub repo, a repo holds something else, or is public although ``private``.
        HubUnavailableError: The Hub does not answer.
        HubError: No token was found, or it may not write.
    """
    token = find_token()
    with quiet():
        model = Remote(to, "model", token=token, say=say, tries=_TRIES_BEFORE_TRAINING)
        metadata_to = check_repo_names(to, None)
        dataset = Remote(metadata_to, "dataset", token=token, say=say, tries=_TRIES_BEFORE_TRAINING)
        if (tree := _load_tree(model, private=private)) is not None:
            check_recipe(record, model, tree)
        if (tree := _load_tree(dataset, private=private)) is not None:
            check_dataset(to, dataset, tree)
        for remote in (model, dataset):
            remote.create(private=private)
            remote.check_writable()


def publish(
    publication: Publication,
    *,
    private: bool = False,
    token: str | None = None,
    files_a_commit: int = FILES_A_COMMIT,
    progress: ByteProgress | None = None,
) -> PushResult:
    """Make both repos hold a publication. Files that they have are not sent again.

    Args:
        publication: The plan.
        private: Whether new repos are private.
        token: A token with write access; None for the token of the environment or the login.
        files_a_commit: Largest number of files in a commit, 1 and up.
        progress: The display; None for standard error.

    Raises:
        AlreadyPublishingError: Another process publishes the zoo.
        TrainingError: The zoo has problems, a repo holds something else or other files of a member, or the tag exists
            on another zoo: nothing was sent. Or a file cannot be read.
        HubError: The Hub cannot be reached, or refuses.
        WeightsError: A file was altered since it was verified.
    """
    token = find_token(token)
    for file in publication.files:
        if isinstance(file.content, bytes) and token.encode() in file.content:
            raise TrainingError(f"{file.path} holds a credential, the token; nothing was sent", fix="Delete it there.")
    progress = ByteProgress("publishing") if progress is None else progress
    with _acquire(publication.source.root), quiet(), progress:
        return _Pusher(publication, token=token, files_a_commit=files_a_commit, progress=progress).push(private=private)


class _Pusher:
    """Brings two repos to a publication, and counts the commits."""

    def __init__(self, publication: Publication, *, token: str, files_a_commit: int, progress: ByteProgress):
        self._publication, self._progress, self._files_a_commit = publication, progress, files_a_commit
        self._model = Remote(publication.to, "model", token=token, say=progress.say)
        self._dataset = Remote(publication.metadata_to, "dataset", token=token, say=progress.say)
        self._commits = 0

    def push(self, *, private: bool) -> PushResult:
        planned, model, dataset = self._publication, self._model, self._dataset
        manifest = planned.closing[-1:]
        at_model, at_dataset = _load_tree(model, private=private), _load_tree(dataset, private=private)
        described = None
        if at_model is not None:
            self._check_model(at_model)
            check_tag(model, at_model, planned.tag, manifest)
        if at_dataset is not None:
            described = check_dataset(planned.to, dataset, at_dataset)
            check_tag(dataset, at_dataset, planned.tag, planned.table_files)
        unsent = [m for m, files in planned.members.items() if at_model is None or at_model.missing(files)]
        if at_model is None or at_model.missing(planned.files):
            model.check_card(next(file for file in planned.closing if file.path == str(layout.README)))
            self._progress.say(f"verifying {len(unsent)} members")
            check_sound(planned, unsent, self._progress.update)
        at_model = at_model or _create(model, private=private)
        at_dataset = at_dataset or _create(dataset, private=private)

        at_model = self._send_all(model, at_model, list(planned.member_files), planned.closing)
        commit = at_model.head
        if not self._commits and described is not None and described.digest == planned.manifest.digest:
            commit = described.commit  # the branch may have moved since, by an edit of .gitattributes for example
        tables = (*planned.table_files, planned.dataset_card(commit))
        at_dataset = self._send_all(dataset, at_dataset, (), tables)
        for remote, tree, marks in ((model, at_model, manifest), (dataset, at_dataset, planned.table_files)):
            if planned.tag is not None and planned.tag not in tree.tags:
                remote.tag(planned.tag, commit=tree.head)
                check_tag(remote, remote.load_tree(), planned.tag, marks)  # another publisher's may have come first
        named = {*planned.manifest.files, str(layout.MANIFEST), GITATTRIBUTES}
        return PushResult(
            url=model.url,
            commit=at_model.head,
            metadata_url=dataset.url,
            metadata_commit=at_dataset.head,
            digest=planned.manifest.digest,
            commits=self._commits,
            left_alone=sum(path not in named for path in at_model.files),
        )

    def _check_model(self, tree: RemoteTree) -> None:
        check_recipe(self._publication.record, self._model, tree)
        check_members(self._publication, self._model, tree)

    def _send_all(
        self, remote: Remote, tree: RemoteTree, files: Sequence[PlannedFile], closing: Sequence[PlannedFile]
    ) -> RemoteTree:
        """Send the files that a repo does not have, the closing ones last in one commit.

        Returns:
            The tree that has all files, by size and hash.
        """
        conflicts, every = 0, [*files, *closing]
        while missing := tree.missing(every):
            head = tree.head
            try:
                for batch in _batches(tree.missing(files), self._files_a_commit):
                    head = self._commit(remote, batch, message=f"Add {len(batch)} files of members", parent=head)
                if last := tree.missing(closing):
                    head = self._commit(
                        remote, last, message=f"Publish {self._publication.manifest.digest}", parent=head
                    )
            except BranchMovedError:
                head = None
                pause(conflicts)
            tree = remote.load_tree()
            wrong = tree.missing(every)
            conflicts = conflicts + 1 if len(wrong) >= len(missing) else 0
            if wrong and (tree.head == head or conflicts == TRIES):
                raise HubError(
                    f"{remote.repo} does not have the sent files, or another client changes them all the time: "
                    f"{some(file.path for file in wrong)}",
                    fix=f"Let only one client publish. {AGAIN}",
                    repo=remote.repo,
                )
            if remote is self._model:
                self._check_model(tree)
            else:
                check_dataset(self._publication.to, remote, tree)
        return tree

    def _commit(self, remote: Remote, files: Sequence[PlannedFile], *, message: str, parent: str) -> str:
        size, sent, additions = sum(file.size for file in files), 0, []
        self._progress.say(f"{remote.repo}: sending {len(files):,} files, {in_bytes(size)}")
        for batch in _batches(files, _FILES_AN_UPLOAD, most_bytes=_BYTES_AN_UPLOAD):
            additions += remote.upload(batch)
            sent += sum(file.size for file in batch)
            self._progress.update(sent, size)
        commit = remote.commit(additions, message=message, parent=parent)
        self._commits += 1
        return commit


def _load_tree(remote: Remote, *, private: bool) -> RemoteTree | None:
    """List a repo's files; return None if it does not exist. Refuse a public repo if ``private``."""
    is_private = remote.is_private()
    if private and is_private is False:
        raise TrainingError(
            f"{remote.repo} exists and is public, but --private was given; nothing was sent",
            fix="Make it private on its page, or omit --private.",
        )
    return None if is_private is None else remote.load_tree()


def _create(remote: Remote, *, private: bool) -> RemoteTree:
    remote.create(private=private)
    return remote.load_tree()


def _batches(
    files: Sequence[PlannedFile], most_files: int, *, most_bytes: float = float("inf")
) -> Iterator[list[PlannedFile]]:
    """Split files into batches of bounded number and size; a larger file is a batch of its own."""
    batch: list[PlannedFile] = []
    for file in files:
        if batch and (len(batch) == most_files or sum(other.size for other in batch) + file.size > most_bytes):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _acquire(root: Path) -> contextlib.AbstractContextManager[Lease | None]:
    """Keep a second publisher out of a zoo folder in which members are trained."""
    leases = leases_root(root)
    if not (leases.is_dir() and os.access(leases, os.W_OK)):
        return contextlib.nullcontext()
    try:
        return acquire(leases, "publish")
    except LeaseHeld as error:
        raise AlreadyPublishingError(
            f"Another process is publishing {root}: {error.holder}; nothing was sent", fix="Wait for it to end."
        ) from None
