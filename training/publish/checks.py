"""What a publication refuses before anything is sent: to overwrite something else, or to tell what is nobody's."""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePosixPath

from training.publish.files import PlannedFile
from training.publish.look import Look
from training.publish.plan import Publication
from training.publish.privacy import Privacy
from training.publish.remote import Remote
from vitzoo.errors import TrainingError
from vitzoo.records import ZooRecord, json_files, layout
from vitzoo.tables.cards import parse_published

GITATTRIBUTES = ".gitattributes"  # the Hub's own


def check_visibility(remote: Remote, *, is_private: bool | None, wanted: bool) -> None:
    """Refuse to publish into a public repo what was to be private."""
    if wanted and is_private is False:
        raise TrainingError(
            f"{remote.repo} is there already and is public, but --private was given; nothing was sent. Make it private "
            "on its page, or leave --private out."
        )


def check_model(publication: Publication, remote: Remote, look: Look) -> None:
    """Refuse a model repo that holds another zoo, or something else than a zoo."""
    check_recipe(publication.record, remote, look)
    if str(layout.ZOO_JSON) not in look.files:
        _check_unfinished(publication, remote, look)


def check_recipe(record: ZooRecord, remote: Remote, look: Look) -> None:
    """Refuse a model repo that holds another recipe's zoo, or something else than a zoo."""
    _check_foreign(remote, look, lambda path: path == str(layout.MANIFEST) or layout.is_zoo_file(path))
    path = str(layout.ZOO_JSON)
    if path not in look.files or look.holds(PlannedFile.of(path, json_files.sorted_json(record))):
        return
    try:
        recipe_sha256 = json.loads(remote.read(path, commit=look.head))["recipe_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        recipe_sha256 = None
    if recipe_sha256 != record.recipe_sha256:
        raise TrainingError(
            f"{remote.repo} holds the zoo of another recipe (sha256 {str(recipe_sha256)[:12]}..., ours "
            f"{record.recipe_sha256[:12]}...); nothing was sent. Name another repo with --to."
        )


def _check_unfinished(publication: Publication, remote: Remote, look: Look) -> None:
    """Refuse the rest of an interrupted publication of other members than ours."""
    unknown, other = set(), set()
    for path in look.files:
        found = layout.parse_member_file(PurePosixPath(path))
        if found is None:
            continue
        ours = {file.path: file for file in publication.members.get(found[0], ())}
        record = str(layout.member_file(found[0]))
        if record not in ours:
            unknown.add(found[0])
        elif record in look.files and not look.holds(ours[record]):
            other.add(found[0])
    if unknown or other:
        which = [
            f"{_some(set(map(str, members)))} {what}"
            for members, what in ((other, "differ from ours"), (unknown, "are none of ours"))
            if members
        ]
        raise TrainingError(
            f"{remote.repo} holds members of a publication that never ended, of which {' and '.join(which)}; nothing "
            "was sent. Where they are another zoo's, name another repo with --to. Where they are this zoo's, trained "
            "again or taken away since, delete their folders there, or the whole repo, and publish again."
        )


def _some(values: Collection[str]) -> str:
    return ", ".join(sorted(values)[:5]) + (", ..." if len(values) > 5 else "")


def check_dataset(publication: Publication, remote: Remote, look: Look) -> None:
    """Refuse a dataset repo that holds something else than this zoo's tables."""
    check_tables(publication.to, remote, look)


def check_tables(to: str, remote: Remote, look: Look) -> None:
    """Refuse a dataset repo that holds something else than the tables of a model repo."""
    _check_foreign(
        remote, look, lambda path: path == str(layout.README) or layout.is_zoo_file(str(layout.METADATA / path))
    )
    tables = [path for path in look.files if path not in (GITATTRIBUTES, str(layout.README))]
    if not tables:
        return
    path = str(layout.README)
    card = remote.read(path, commit=look.head).decode(errors="replace") if path in look.files else ""
    described = parse_published(card)
    if described is None or described.repo != to:
        whose = "something else" if described is None else f"the tables of {described.repo}"
        raise TrainingError(
            f"{remote.repo} holds {whose}; nothing was sent there. Name another repo with --metadata-to."
        )


def _check_foreign(remote: Remote, look: Look, ours: Callable[[str], bool]) -> None:
    foreign = [path for path in look.files if path != GITATTRIBUTES and not ours(path)]
    if foreign:
        raise TrainingError(
            f"{remote.repo} holds files that no zoo has ({_some(set(map(ascii, foreign)))}); nothing was sent. Name "
            "another repo, or take them out."
        )


def check_tag(remote: Remote, look: Look, tag: str | None, marks: Sequence[PlannedFile]) -> None:
    """Refuse a tag that is there already and means something else."""
    if tag is None or tag not in look.tags:
        return
    tagged = remote.files_at(tag, [file.path for file in marks])
    if not all(file.path in tagged and tagged[file.path].holds(file) for file in marks):
        raise TrainingError(
            f'{remote.repo} has the tag "{tag}" already, on another zoo or another version of it. Tags do not move: '
            "choose another with --tag."
        )


def check_private(publication: Publication, token: str) -> None:
    """Refuse texts that hold the token, or what else is never published."""
    privacy = Privacy(publication.source.root, secrets=[token], public=(publication.to, publication.metadata_to))
    for file in publication.files:
        if isinstance(file.content, bytes) and not file.path.endswith(".parquet"):
            privacy.check(file.path, file.content)
