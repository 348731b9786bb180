"""Check before an upload: the target repos are empty or hold this zoo, and the members are what their records say."""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

from training.publish.plan import PlannedFile, Publication, some
from training.publish.privacy import Privacy
from training.publish.remote import Remote, RemoteTree
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records import ZooRecord, json_files, layout
from vitzoo.tables.cards import Published, parse_published

GITATTRIBUTES = ".gitattributes"  # the Hub adds it
_SHOWN = 5


def check_recipe(record: ZooRecord, remote: Remote, tree: RemoteTree) -> None:
    """Refuse a model repo with another recipe's zoo, or with files that are not part of a zoo."""
    _check_foreign(remote, tree, lambda path: path == str(layout.MANIFEST) or layout.is_zoo_file(path))
    path = str(layout.ZOO_JSON)
    if path not in tree.files or tree.has(PlannedFile.of(path, json_files.sorted_json(record))):
        return
    try:
        recipe_sha256 = json.loads(remote.read(path, commit=tree.head))["recipe_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        recipe_sha256 = None
    if recipe_sha256 != record.recipe_sha256:
        raise TrainingError(
            f"{remote.repo} holds the zoo of another recipe (sha256 {str(recipe_sha256)[:12]}...); nothing was sent",
            expected=f"{record.recipe_sha256[:12]}...",
            fix="Name another repo with --to.",
        )


def check_members(publication: Publication, remote: Remote, tree: RemoteTree) -> None:
    """Refuse to replace a published member, and to finish a publication of other members."""
    root = publication.source.root
    changed = {
        member
        for member, files in publication.members.items()
        if any(file.path in tree.files and not tree.has(file) for file in files)
    }
    if changed:
        raise TrainingError(
            f"{some(changed)} in {remote.repo} differ from the members of {root}, and a published member is never "
            "replaced; nothing was sent",
            fix="Publish to another repo with --to, or delete the member's folder in the repo first.",
        )
    sent = {found[0] for path in tree.files if (found := layout.parse_member_file(PurePosixPath(path))) is not None}
    unknown = sent - publication.members.keys()
    if unknown and str(layout.ZOO_JSON) not in tree.files:
        raise TrainingError(
            f"{remote.repo} holds an unfinished publication with {some(unknown)}, which are not in {root}; nothing was "
            "sent",
            fix="Name another repo with --to, or delete this one.",
        )


def check_dataset(to: str, remote: Remote, tree: RemoteTree) -> Published | None:
    """Refuse a dataset repo that does not hold the tables of a model repo.

    Returns:
        The published zoo that its card names; None for a repo without tables.
    """
    readme = str(layout.README)
    _check_foreign(remote, tree, lambda path: path == readme or layout.is_zoo_file(str(layout.METADATA / path)))
    card = remote.read(readme, commit=tree.head).decode(errors="replace") if readme in tree.files else ""
    published = parse_published(card)
    has_tables = tree.files.keys() - {GITATTRIBUTES, readme}
    if has_tables and (published is None or published.repo != to):
        content = "something else" if published is None else f"the tables of {published.repo}"
        raise TrainingError(
            f"{remote.repo} holds {content}; nothing was sent there", fix="Name another repo with --metadata-to."
        )
    return published


def _check_foreign(remote: Remote, tree: RemoteTree, is_ours: Callable[[str], bool]) -> None:
    foreign = [ascii(path) for path in tree.files if path != GITATTRIBUTES and not is_ours(path)]
    if foreign:
        raise TrainingError(
            f"{remote.repo} holds files that are not part of a zoo ({some(foreign)}); nothing was sent",
            fix="Name another repo, or delete them.",
        )


def check_tag(remote: Remote, tree: RemoteTree, tag: str | None, marks: Sequence[PlannedFile]) -> None:
    """Refuse a tag that exists on a commit without these files."""
    if tag is not None and tag in tree.tags and not remote.has_at(tag, marks):
        raise TrainingError(
            f'{remote.repo} already has the tag "{tag}", on another zoo or another version of it',
            fix="Choose another with --tag; tags do not move.",
        )


def check_sound(publication: Publication, unsent: Collection[MemberId], report: Callable[[int, int], None]) -> None:
    """Verify the members as `vitzoo verify` does, without the folder's own tables.

    Args:
        publication: The publication.
        unsent: Members with files that the repo does not have. Only their weights files are read: others were verified
            when they were sent, and the repo lists the recorded hashes.
        report: Called with the bytes read so far and the bytes in all, from several threads, one at a time.

    Raises:
        TrainingError: A member is not what its records say, or the header of a weights file holds private data.
    """
    from vitzoo.tensors.header import load_header
    from vitzoo.verification.verify import verify_zoo  # torch
    from vitzoo.zoo.zoo import Zoo

    problems = verify_zoo(
        Zoo.of(publication.source),
        report=report,
        planned=publication.manifest,
        verified=publication.members.keys() - unsent,
    ).problems
    if problems:
        texts = [f"{problem.member}: {problem.what.rstrip('.')}. {problem.fix}" for problem in problems[:_SHOWN]]
        more = f" And {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
        epochs = publication.manifest.epochs
        # A list of epochs would leave the final weights out.
        option = "" if epochs == "all" or epochs[0].isdigit() else f" --epochs {epochs}"
        raise TrainingError(
            f"{publication.source.root} has problems, so nothing was sent. {' '.join(texts)}{more}",
            fix=f"To see all: vitzoo verify {publication.source.root}{option}",
        )
    privacy = Privacy(publication.source.root, public=(publication.to, publication.metadata_to))
    for member in unsent:
        for file in publication.members[member]:
            if isinstance(file.content, Path):
                start = min((entry.start for entry in load_header(file.content).values()), default=file.size)
                with open(file.content, "rb") as opened:
                    privacy.check(file.path, opened.read(start))
