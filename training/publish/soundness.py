"""A zoo is verified before it is published: what `vitzoo verify` says of its members, said before anybody got them.

The folder's own tables are not looked at: a publication builds its own, and those of a zoo that is still trained are of
an earlier moment.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from threading import Lock

from training.publish.plan import Publication
from training.publish.verified import Verified, mark_files
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records.epochs import Epochs
from vitzoo.verification.configs import check_configs
from vitzoo.verification.members import Findings, Scope, check_member
from vitzoo.verification.problems import Problem
from vitzoo.verification.relations import check_equal_weights, check_lineage
from vitzoo.zoo.zoo import Zoo

_WORKERS = min(8, max(2, os.cpu_count() or 2))
_SHOWN = 5


def check_sound(publication: Publication, report: Callable[[int, int], None], verified: Verified | None = None) -> None:
    """Refuse a zoo whose members or epochs to be published are not what their records say.

    Args:
        publication: What is published; every file of its members is read, but for the verified ones.
        report: Called with the bytes read so far and the bytes in all, from several threads, one at a time.
        verified: What was found right before, to be added to; what of it is still the same is not read again.

    Raises:
        TrainingError: Something is wrong: the first problems by member, and how to see all.
    """
    problems = list(find_problems(publication, report, Verified() if verified is None else verified))
    if not problems:
        return
    some = " ".join(f"{problem.member}: {problem.what.rstrip('.')}. {problem.fix}" for problem in problems[:_SHOWN])
    more = f" And {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
    epochs = publication.manifest.epochs
    chosen = "" if epochs == "all" or epochs[0].isdigit() else f" --epochs {epochs}"  # a list leaves the final ones out
    command = f"vitzoo verify {publication.source.root}{chosen}"
    raise TrainingError(
        f"{publication.source.root} is not sound, so nothing was sent. {some}{more} All that is wrong: {command}"
    )


def find_problems(
    publication: Publication, report: Callable[[int, int], None], verified: Verified
) -> Iterator[Problem]:
    """What is wrong with the members and epochs to be published, by member."""
    known = {member: verified.find(member, files) for member, files in publication.members.items()}
    unknown = {member: publication.members[member] for member, found in known.items() if found is None}
    total, done, lock = sum(file.size for files in unknown.values() for file in files), 0, Lock()

    def count(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            report(min(done, total), total)

    scope = Scope(
        zoo=Zoo.of(publication.source),
        manifest=None,  # the one to be published lies in no folder
        published=Epochs(publication.manifest.epochs),
        epochs=Epochs("all"),  # of those published
        count_file=count,
    )

    def look_at(member: MemberId) -> Findings:
        marks = mark_files(unknown[member])
        findings = check_member(scope, member, {PurePosixPath(file.path).name for file in unknown[member]})
        verified.add(findings, marks)
        return findings

    with ThreadPoolExecutor(_WORKERS) as pool:
        looked_at = dict(zip(unknown, pool.map(look_at, unknown), strict=True))
    findings = {member: looked_at[member] if found is None else found for member, found in known.items()}
    for member, files in publication.members.items():
        for file in files:
            path = publication.source.root / file.path
            if isinstance(file.content, bytes) and path.is_file() and path.read_bytes() != file.content:
                findings[member].problems.add(
                    "was changed since publishing began", file=path.name, fix="Publish again."
                )
    check_configs(scope, findings)
    check_lineage(scope, findings)
    check_equal_weights(findings)
    for member in sorted(findings):
        yield from findings[member].problems
