"""A whole zoo verified: every file, record, number and table, and some members evaluated again.

Hashes inside a zoo prove that it agrees with itself. Which zoo it is proves a digest alone, given to `Zoo(digest=)`:
then every file is also compared with the manifest of that digest.
"""

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock

from vitzoo.errors import MemberNotFoundError, SelectionError, VitZooError, did_you_mean, shown
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.manifest import Manifest
from vitzoo.sources.source import ZooSource
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tables.columns import TABLES
from vitzoo.verification.configs import check_configs
from vitzoo.verification.evaluations import Comparison, compare_with_record, spread_evenly
from vitzoo.verification.listing import Listing, check_others, list_files
from vitzoo.verification.members import Findings, Scope, check_against_manifest, check_member
from vitzoo.verification.problems import Problem, Problems
from vitzoo.verification.relations import check_equal_weights, check_lineage
from vitzoo.verification.tables import check_tables
from vitzoo.zoo.member import Member
from vitzoo.zoo.zoo import Zoo

_WORKERS = min(8, max(2, os.cpu_count() or 2))
_ALL = Epochs("all")
_PUBLISH = "Publish the zoo again: python -m training publish."


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What verifying a zoo found.

    Args:
        problems: What is wrong, the zoo's own files first, then by member.
        members: Members looked at.
        files: Files read to their last byte.
        bytes: Their sizes, together.
        evaluations: Members evaluated again.
        digest: Of the zoo's manifest; None where there is none.
        authenticated: Whether the zoo was opened with a digest, so that it is known which zoo this is.
        unlisted: Why a Hub repo's list of files could not be had, so that files beside the zoo's were not looked for;
            None where it was, or where none is needed.
    """

    problems: tuple[Problem, ...]
    members: int
    files: int
    bytes: int
    evaluations: tuple[Comparison, ...]
    digest: str | None
    authenticated: bool
    unlisted: str | None


def verify_zoo(
    zoo: Zoo,
    *,
    members: Collection[MemberId] | None = None,
    epochs: Epochs = _ALL,
    evaluate: int = 0,
    data: Mapping[str, Path] | None = None,
    report: Callable[[int, int], None] | None = None,
    planned: Manifest | None = None,
    verified: Collection[MemberId] = (),
) -> Verification:
    """Look for everything that is wrong with a zoo.

    Every file is there, with the size and hash of member.json and manifest.json, and none beside those that the
    manifest names; records, configs and recipe are sound and fit together; every tensor is finite and of its config's
    shape; weights are those that were measured, and equal to no other without a reason; children start where their
    parents end; the tables say what the records say.

    Args:
        zoo: The zoo; opened with ``digest=``, every file is also held against the manifest of that digest.
        members: The members to look at; None for all.
        epochs: The epochs whose weights are looked at.
        evaluate: How many members are evaluated again on their test images, evenly spread; 0 and up.
        data: Folders of data sets that are on this machine, by name, for those evaluations.
        report: Called with the bytes read so far and the bytes in all, from several threads, one at a time.
        planned: The manifest that a publication is going to write. Only the files of its members are checked, not the
            zoo's own files and tables.
        verified: Members whose weights files are not read, because an earlier call read them.

    Returns:
        What was found. What is wrong with one member keeps no other from being looked at.

    Raises:
        MemberNotFoundError: One of ``members`` is not in the zoo.
        SelectionError: ``epochs`` chooses no weights of any member.

    Example:
        >>> verify_zoo(Zoo("zoo")).problems  # doctest: +SKIP
        ()
    """
    own = Problems(None)
    if planned is None:
        manifest, published = _load_manifest(zoo.source, own)
        listing = list_files(zoo.source, manifest, own, published=published)
    else:
        manifest, published, listing = planned, Epochs(planned.epochs), Listing.of(planned)
    files, unreachable = _restrict(listing, members)
    _check_choice(zoo.source, manifest, files, epochs)
    unread = {member: names for member, names in files.items() if member not in verified}
    counter = _Counter(report, _count_bytes(zoo.source, manifest, unread, epochs))
    scope = Scope(zoo=zoo, manifest=manifest, published=published, epochs=epochs, count_file=counter.add)
    if planned is None:
        _check_own_files(scope, own, listing)
    with ThreadPoolExecutor(_WORKERS) as pool:
        looked_at = pool.map(
            lambda item: check_member(scope, *item, weights=item[0] not in verified), sorted(files.items())
        )
        findings = {found.member: found for found in looked_at}
    by_member = {found.member: found.problems for found in findings.values()} | unreachable
    if manifest is not None and planned is None:
        check_others(zoo.source, listing, manifest, {None: own, **by_member})
    check_configs(scope, findings)
    check_lineage(scope, findings)
    check_equal_weights(findings)
    if planned is None:
        check_tables(scope, own, findings, others_allowed=members is not None)
    evaluations = _evaluate(scope, findings, evaluate, data=data)
    ordered = [problems for _, problems in sorted(by_member.items())]
    return Verification(
        problems=tuple(problem for problems in [own, *ordered] for problem in problems),
        members=len(ordered),
        files=counter.files,
        bytes=counter.bytes,
        evaluations=evaluations,
        digest=None if manifest is None else manifest.digest,
        authenticated=zoo.source.digest is not None,
        unlisted=listing.unlisted,
    )


class _Counter:
    """Counts what was read, in several threads."""

    def __init__(self, report: Callable[[int, int], None] | None, total: int):
        self.files = self.bytes = 0
        self._report, self._total, self._lock = report, total, Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self.files += 1
            self.bytes += size
            if self._report is not None:
                self._report(self.bytes, max(self._total, self.bytes))


def _load_manifest(source: ZooSource, problems: Problems) -> tuple[Manifest | None, Epochs]:
    with problems.collecting():
        manifest = source.manifest
        if manifest is None:
            return None, _ALL
        published = _ALL
        with problems.collecting(file=str(layout.MANIFEST)):
            published = Epochs(manifest.epochs)
        return manifest, published
    return None, _ALL


def _restrict(
    listing: Listing, members: Collection[MemberId] | None
) -> tuple[dict[MemberId, set[str]], dict[MemberId, Problems]]:
    """The members' files, and the members that cannot be listed, of those members."""
    files, unreachable = listing.members, listing.unreachable
    if members is None:
        return files, unreachable
    for member in members:
        if member not in files and member not in unreachable:
            raise MemberNotFoundError(
                f"The zoo has no member {member}.{did_you_mean(member, sorted([*files, *unreachable]))}", member=member
            )
    return (
        {member: names for member, names in files.items() if member in members},
        {member: problems for member, problems in unreachable.items() if member in members},
    )


def _check_choice(
    source: ZooSource, manifest: Manifest | None, files: Mapping[MemberId, set[str]], epochs: Epochs
) -> None:
    """A choice of epochs that chooses nothing would find nothing wrong; a zoo without weights was not chosen so."""
    kept = {
        layout.parse_weights_name(name) for names in files.values() for name in names if layout.is_weights_name(name)
    }
    if epochs.of(kept):
        return
    for member in files if manifest is None else ():
        with suppress(VitZooError, OSError):  # a problem when it is looked at
            kept.update(weights.epoch for weights in Catalogue(source).member_record(member).weights)
    if kept and not epochs.of(kept):
        known = [*map(str, sorted(epoch for epoch in kept if epoch is not None)), *(["last"] if None in kept else [])]
        raise SelectionError(
            f'epochs "{epochs}" choose nothing: no member has such weights.{did_you_mean(epochs, known)}',
            value=str(epochs),
        )


def _count_bytes(
    source: ZooSource, manifest: Manifest | None, files: Mapping[MemberId, set[str]], epochs: Epochs
) -> int:
    """How much there is to read, roughly: for the display."""
    total = 0
    for member, names in files.items():
        for name in names:
            if layout.is_weights_name(name) and not epochs.of([layout.parse_weights_name(name)]):
                continue
            relative = layout.member_folder(member) / name
            named = manifest.files.get(str(relative)) if manifest is not None else None
            local = source.root / relative
            total += named.size if named is not None else local.stat().st_size if local.is_file() else 0
    return total


def _check_own_files(scope: Scope, problems: Problems, listing: Listing) -> None:
    """The files that belong to no member are those that the manifest names."""
    if scope.manifest is None:
        return
    named = [path for path in scope.manifest.files if layout.parse_member_file(PurePosixPath(path)) is None]
    for name in sorted(named):
        with problems.collecting(file=name):
            check_against_manifest(scope, problems, PurePosixPath(name), name)
    required = [layout.ZOO_JSON, layout.METADATA_README, *map(layout.table_file, TABLES)]
    for path in required:
        if path not in scope.manifest and path not in listing.others:  # else `check_others` says so
            problems.add("not named by manifest.json", file=str(path), fix=_PUBLISH)


def _evaluate(
    scope: Scope, findings: Mapping[MemberId, Findings], count: int, *, data: Mapping[str, Path] | None
) -> tuple[Comparison, ...]:
    completed = [
        member for member, found in findings.items() if found.record is not None and found.record.status == "completed"
    ]
    comparisons = []
    for member in spread_evenly(completed, count):
        problems = findings[member].problems
        with problems.collecting():
            comparison = compare_with_record(Member(scope.zoo.catalogue, member), data=data)
            comparisons.append(comparison)
            if not comparison.agrees:
                problems.add(
                    f"{comparison.figure} on {comparison.images} test images of {shown(comparison.dataset)} is "
                    f"{comparison.measured:.4f} now, recorded {shown(comparison.recorded)}",
                    fix="Its weights are not those that were measured, or its images are others: get the member again.",
                )
    return tuple(comparisons)
