"""Verify a whole zoo: every file, record, tensor and table, and some members' metrics.

Hashes inside a zoo prove only that the zoo agrees with itself. A digest proves which zoo it is: with `Zoo(digest=)`
every file is also compared with the manifest of that digest.
"""

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vitzoo.errors import MemberNotFoundError, SelectionError, advise, did_you_mean, shown
from vitzoo.ids import MemberId
from vitzoo.notebook import Shown
from vitzoo.progress import ByteCount
from vitzoo.records import layout
from vitzoo.records.copies import CopyRecord
from vitzoo.records.epochs import Epochs
from vitzoo.records.manifest import Manifest
from vitzoo.sources.source import ZooSource
from vitzoo.tables.columns import TABLES
from vitzoo.verification.evaluations import Comparison, compare_with_record
from vitzoo.verification.listing import Listing, check_others, list_files
from vitzoo.verification.members import Findings, Scope, check_against_manifest, check_member
from vitzoo.verification.plan import check_plan
from vitzoo.verification.problems import Problem, Problems
from vitzoo.verification.relations import check_configs, check_equal_weights, check_lineage
from vitzoo.verification.tables import check_tables
from vitzoo.zoo.member import Member
from vitzoo.zoo.zoo import Zoo

_WORKERS = min(8, max(2, os.cpu_count() or 2))
_ALL = Epochs("all")
_PUBLISH = advise(
    repository="Publish the zoo again: python -m training publish.", wheel="Get the zoo again, or ask its authors."
)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Verification(Shown):
    """Result of verifying a zoo."""

    problems: tuple[Problem, ...]  # the zoo's own, then the members'
    members: int  # number of checked members
    files: int  # number of files that were read whole
    bytes: int  # total size of these files
    evaluations: tuple[Comparison, ...]
    digest: str | None  # the manifest's; None without a manifest
    authenticated: bool  # opened with a digest, which proves which zoo it is
    unlisted: str | None  # why a Hub repo's list of files is missing, so that other files were not looked for
    copied: CopyRecord | None  # of a partial copy, whose other files were not looked for

    def _facts(self) -> dict[str, Any]:
        names = ("members", "files", "bytes", "digest", "authenticated")
        return {"problems": len(self.problems)} | {name: getattr(self, name) for name in names}

    def _table_rows(self) -> list[dict[str, Any]]:
        return [{"member": each.member, "problem": each.what, "fix": each.fix} for each in self.problems]


def verify_zoo(
    zoo: Zoo,
    *,
    members: Collection[MemberId] | None = None,
    epochs: Epochs = _ALL,
    evaluate: int = 0,
    data: Mapping[str, Path] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    step: Callable[[str], None] = lambda what: None,
    planned: Manifest | None = None,
    verified: Collection[MemberId] = (),
) -> Verification:
    """Look for every problem of a zoo. A problem of one member does not end the check of the others.

    Every file must exist with its recorded size and hash, and the manifest must name it. Records, configs and recipe
    must be sound and agree. Tensors must be finite and have their config's shapes. Weights must be the measured ones
    with the recorded norms, and equal only where the records explain it. Children must start from their parents'
    weights. Tables must agree with the records.

    Args:
        zoo: The zoo. If opened with ``digest=``, every file is also compared with the manifest of that digest.
        members: The members to check; None for all.
        epochs: The epochs whose weights are checked.
        evaluate: Number of members, spread evenly, that are evaluated again on their test images.
        data: Folders of data sets on this machine, by name, for these evaluations.
        report: Called with the finished and the total bytes, from several threads, one at a time.
        step: Called with the name of each part of the work that begins after the files were read.
        planned: The manifest that a publication is going to write. Only the files of its members are checked, not the
            zoo's own files and tables.
        verified: Members whose weights files are not read, because an earlier call read them.

    Raises:
        MemberNotFoundError: One of ``members`` is not in the zoo.
        SelectionError: ``epochs`` selects no weights of any member.

    Example:
        >>> verify_zoo(Zoo("zoo")).problems
        ()
    """
    own = Problems(None)
    if planned is None:
        manifest, published, copied = _load_manifest(zoo.source, own)
        listing = list_files(zoo.source, manifest, own, published=published, copied=copied)
    else:
        manifest, published, copied, listing = planned, Epochs(planned.epochs), None, Listing.of(planned)
    files, unreachable = _select_members(listing, members)
    unread = {member: names for member, names in files.items() if member not in verified}
    counter = ByteCount(_count_bytes(zoo.source, manifest, unread, epochs), report)
    scope = Scope(zoo=zoo, manifest=manifest, published=published, copied=copied, epochs=epochs, count_file=counter.add)
    if planned is None:
        _check_own_files(scope, own, listing)
    with ThreadPoolExecutor(_WORKERS) as pool:
        checked = pool.map(
            lambda item: check_member(scope, *item, weights=item[0] not in verified), sorted(files.items())
        )
        findings = {result.member: result for result in checked}
    _check_epochs(findings, epochs)
    by_member = {result.member: result.problems for result in findings.values()} | unreachable
    if planned is None:
        check_others(zoo.source, listing, manifest, {None: own, **by_member})
    check_configs(scope, findings)
    check_plan(scope, findings)
    check_lineage(scope, findings)
    check_equal_weights(findings)
    if planned is None:
        step("comparing the tables with the records")
        check_tables(scope, own, findings, others_allowed=members is not None or copied is not None)
    evaluations = _evaluate(scope, findings, evaluate, data=data, step=step)
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
        copied=copied,
    )


def _load_manifest(source: ZooSource, problems: Problems) -> tuple[Manifest | None, Epochs, CopyRecord | None]:
    """Return the manifest, its published epochs, and a partial copy's record, as far as they are sound."""
    manifest, published, copied = None, _ALL, None
    with problems.collecting():
        manifest = source.manifest
    if manifest is not None:
        with problems.collecting(file=str(layout.MANIFEST)):
            published = Epochs(manifest.epochs)
    with problems.collecting():
        copied = source.copied
    return manifest, published, copied


def _select_members(
    listing: Listing, members: Collection[MemberId] | None
) -> tuple[dict[MemberId, set[str]], dict[MemberId, Problems]]:
    """Return the files of the selected members, and the selected members that cannot be listed."""
    known = {**listing.members, **listing.unreachable}
    for member in members or ():
        if member not in known:
            fix = did_you_mean(member, sorted(known)).strip() or None
            raise MemberNotFoundError(f"The zoo has no member {member}", fix=fix, member=member)
    selected = known if members is None else members
    return (
        {member: names for member, names in listing.members.items() if member in selected},
        {member: problems for member, problems in listing.unreachable.items() if member in selected},
    )


def _check_epochs(findings: Mapping[MemberId, Findings], epochs: Epochs) -> None:
    """Refuse epochs that select no weights, because none were checked."""
    saved = {epoch for member in findings.values() for epoch in member.saved}
    if saved and not epochs.of(saved):
        known = [*map(str, sorted(epoch for epoch in saved if epoch is not None)), *(["last"] if None in saved else [])]
        raise SelectionError(
            f'epochs "{epochs}" select no weights of any member',
            fix=did_you_mean(epochs, known).strip() or None,
            value=str(epochs),
        )


def _count_bytes(
    source: ZooSource, manifest: Manifest | None, files: Mapping[MemberId, set[str]], epochs: Epochs
) -> int:
    """Estimate the bytes to read, for the progress bar."""
    total = 0
    for member, names in files.items():
        for name in names:
            if not layout.is_weights_name(name) or epochs.of([layout.parse_weights_name(name)]):
                relative = layout.member_folder(member) / name
                record = manifest.files.get(str(relative)) if manifest is not None else None
                local = source.root / relative
                total += record.size if record is not None else local.stat().st_size if local.is_file() else 0
    return total


def _check_own_files(scope: Scope, problems: Problems, listing: Listing) -> None:
    """Check the zoo's files outside of members' folders against the manifest."""
    if scope.manifest is None:
        return
    for name in sorted(scope.manifest.files):
        if layout.parse_member_file(PurePosixPath(name)) is None:
            with problems.collecting(file=name):
                check_against_manifest(scope, problems, PurePosixPath(name), name)
    for path in (layout.ZOO_JSON, layout.METADATA_README, *map(layout.table_file, TABLES)):
        if path not in scope.manifest and path not in listing.others:  # `check_others` reports the others
            problems.add("not named by manifest.json", file=str(path), fix=_PUBLISH)


def _evaluate(
    scope: Scope,
    findings: Mapping[MemberId, Findings],
    count: int,
    *,
    data: Mapping[str, Path] | None,
    step: Callable[[str], None],
) -> tuple[Comparison, ...]:
    """Evaluate some completed members, always the same ones, again."""
    completed = [
        member
        for member, result in findings.items()
        if result.record is not None and result.record.status == "completed" and result.saved
    ]
    count, comparisons = min(count, len(completed)), []
    for number in range(count):
        member = completed[number * len(completed) // count]
        step(f"evaluating {member}, {number + 1} of {count}")
        problems = findings[member].problems
        with problems.collecting():
            epoch = findings[member].saved[-1]  # None, the final weights, unless a copy lacks them
            comparison = compare_with_record(Member(scope.zoo.catalogue, member), epoch=epoch, data=data)
            comparisons.append(comparison)
            if not comparison.agrees:
                problems.add(
                    f"{comparison.metric} on {comparison.samples} test samples of {shown(comparison.dataset)} is "
                    f"{comparison.measured:.4f} now, recorded {shown(comparison.recorded)}",
                    fix="The weights or the data differ from the measured ones: get the member again.",
                )
    return tuple(comparisons)
