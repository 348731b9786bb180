"""Members held against each other: children against their parents, and weights that are equal without a reason."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.records import MemberRecord, layout
from vitzoo.verification.members import Findings, Scope, load_records
from vitzoo.verification.problems import Problems

_OTHER_FAMILY = "Get the members of one zoo, or train the child again."
_Place = tuple[MemberId, int]


def check_lineage(scope: Scope, findings: Mapping[MemberId, Findings]) -> None:
    """Check that every child started from its parent as both record it.

    Args:
        scope: What is looked at.
        findings: What was found of each member; problems are added to it.
    """
    others: dict[MemberId, Findings] = {}  # parents that are not looked at themselves
    for child in findings.values():
        parent_id = child.member.parent_id
        if parent_id is None:
            if child.record is not None and child.record.parent is not None:
                child.problems.add(f"says parent {shown(child.record.parent)}; a parent has none", file="member.json")
            continue
        parent = findings.get(parent_id) or others.get(parent_id)
        if parent is None:
            parent = others[parent_id] = _load_parent(scope, parent_id)
        _check_child(child, parent)


def check_equal_weights(findings: Mapping[MemberId, Findings]) -> None:
    """Check that no two members or epochs have equal weights but where the records explain it.

    Members start equal (epoch 0) where they have one parent, one head and one head seed, or, of parents, one
    initialisation and one head seed. Of weights that were not looked at, metrics.jsonl says which they are.

    Args:
        findings: What was found of each member; problems are added to it.
    """
    first_places: dict[str, dict[object, _Place]] = defaultdict(dict)  # by weights, then by what explains them
    for found in findings.values():
        if found.record is None:  # which explains nothing, and is a problem already
            continue
        for epoch, weights_id in _weights_ids(found, found.record):
            first_places[weights_id].setdefault(_origin(found, found.record, epoch), (found.member, epoch))
    for places in first_places.values():
        first, *others = places.values()
        for member, epoch in others:
            findings[member].problems.add(
                f"epoch {epoch} has the same weights as {first[0]} at epoch {first[1]}, which no record explains",
                fix="One was copied over the other: get both again, or train them again.",
            )


def _load_parent(scope: Scope, parent: MemberId) -> Findings:
    found = Findings(member=parent, problems=Problems(parent))
    names = []
    for file in (layout.member_file(parent), layout.metrics_file(parent)):
        with found.problems.collecting():
            if scope.source.path(file).is_file():
                names.append(file.name)
    load_records(scope, found, names)
    return found


def _check_child(child: Findings, parent: Findings) -> None:
    record, its, problems = child.record, parent.record, child.problems
    if record is None:
        return
    if record.parent != str(parent.member):
        problems.add(f'says parent {shown(record.parent)}; expected "{parent.member}"', file="member.json")
    if its is None:
        why = "".join(f": {problem.what}" for problem in list(parent.problems)[:1])
        problems.add(f"its parent {parent.member} is not there, or has no sound member.json{why}", fix=_OTHER_FAMILY)
        return
    if its.status != "completed":
        problems.add(f"its parent {parent.member} is {its.status}, not completed", fix=_OTHER_FAMILY)
    if record.init_group != its.init_group:
        problems.add(f"says init_group {shown(record.init_group)}, its parent {shown(its.init_group)}",
                     file="member.json", fix=_OTHER_FAMILY)  # fmt: skip
    epoch = record.parent_epoch
    sha256s = {weights.epoch: weights.sha256 for weights in its.weights}
    sha256s.setdefault(its.epochs, sha256s.get(None, ""))
    if epoch is None or epoch not in sha256s:
        problems.add(f"says parent_epoch {shown(epoch)}, of which {parent.member} has no weights",
                     file="member.json", fix=_OTHER_FAMILY)  # fmt: skip
        return
    if record.parent_sha256 != sha256s[epoch]:
        problems.add(
            f"says parent_sha256 {shown((record.parent_sha256 or '')[:16])}, but {parent.member} says "
            f"{shown(sha256s[epoch][:16])} of its weights at epoch {epoch}",
            file="member.json",
            fix=_OTHER_FAMILY,
        )
    started = next((metrics.backbone_id for metrics in child.metrics if metrics.epoch == 0), None)
    ended = next((metrics.backbone_id for metrics in parent.metrics if metrics.epoch == epoch), None)
    if started is not None and ended is not None and started != ended:
        problems.add(f"does not start at epoch 0 with the backbone of {parent.member} at epoch {epoch}",
                     file="metrics.jsonl", fix=_OTHER_FAMILY)  # fmt: skip


def _weights_ids(found: Findings, record: MemberRecord) -> Iterator[tuple[int, str]]:
    """The digest of every epoch's weights: as found, else as recorded. The final weights are the last epoch's."""
    recorded = {its.epoch: its.weights_id for its in found.metrics if its.weights_id is not None}
    last = record.epochs if record.status == "completed" else max(recorded, default=0)
    looked_at = {last if epoch is None else epoch: digest for epoch, digest in found.weights_ids.items()}
    yield from (recorded | looked_at).items()  # one dict over the other: what was found goes before what is recorded


def _origin(found: Findings, record: MemberRecord, epoch: int) -> object:
    """Equal for places whose weights are equal for a reason."""
    if epoch != 0:
        return (found.member, epoch)
    start = record.init_seed if found.member.is_parent else (found.member.parent_id, record.parent_epoch)
    labels = None if found.config is None else found.config.num_labels
    return (start, record.head_type, record.head_width, record.head_seed, labels)  # whatever a head is for
