"""In which commits a repo gets what it lacks: planned from what is published and a look at the repo, nothing sent.

    commits 1..n   what the repo has no file of yet, whole members, a bounded number of files each
    last commit    what replaces a file (a member trained again), cards, tables, zoo.json and manifest.json

The last one cannot be split: readers would see a manifest whose files are others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from training.publish.files import PlannedFile
from training.publish.look import Look
from training.publish.plan import Publication
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

# The Hub takes 25,000 large files and 1 GB of others in a commit, says `HfApi.create_commit`
# (https://huggingface.co/docs/huggingface_hub/package_reference/hf_api); others travel as base64. Some room is left.
LARGEST_COMMIT = 20_000
_MOST_TEXT = 700_000_000  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """A commit to be made.

    Args:
        message: What it says.
        groups: Its files: a member's together.
    """

    message: str
    groups: tuple[Sequence[PlannedFile], ...]

    @property
    def files(self) -> list[PlannedFile]:
        """All of them."""
        return [file for files in self.groups for file in files]


def plan_commits(
    publication: Publication,
    look: Look,
    members: Mapping[MemberId, Sequence[PlannedFile]],
    closing: Sequence[PlannedFile],
    *,
    files_a_commit: int,
) -> list[Commit]:
    """The commits that a repo lacks.

    Args:
        publication: What is published.
        look: The repo.
        members: The members that it is to have, each with all its files.
        closing: What goes last.
        files_a_commit: Most files of a commit but the last; a member is never split.

    Raises:
        TrainingError: More is replaced than one commit may hold.
    """
    new, replaced = {}, {}
    for member, files in members.items():
        lacking = [file for file in files if not look.holds(file)]
        # A member that replaces a file is seen with the manifest that names the new one, not before.
        if lacking:
            (replaced if any(file.path in look.files for file in lacking) else new)[member] = lacking
    commits = [
        Commit(message=_title(list(group)), groups=tuple(group.values())) for group in _bounded(new, files_a_commit)
    ]
    last = [file for file in closing if not look.holds(file)]
    if replaced or last:
        message = f"Publish {publication.manifest.digest}"
        commits.append(Commit(message=message, groups=(*replaced.values(), last)))
        _check_size(commits[-1], replaced=len(replaced))
    return commits


def _check_size(last: Commit, *, replaced: int) -> None:
    text = sum(file.size for file in last.files if isinstance(file.content, bytes))
    if len(last.files) > LARGEST_COMMIT or text > _MOST_TEXT:
        raise TrainingError(
            f"{replaced} members that are published already were trained again. They are replaced in one commit, so "
            f"that nobody reads a mixture; it would have {len(last.files):,} files, {text:,} bytes of records and "
            f"tables among them, and the Hub takes {LARGEST_COMMIT:,} files and {_MOST_TEXT:,} such bytes. Nothing was "
            "sent: publish to another repo with --to."
        )


def _title(members: Sequence[MemberId]) -> str:
    return f"Add {members[0]}" + (f" and {len(members) - 1} more members" if len(members) > 1 else "")


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
