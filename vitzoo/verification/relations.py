"""Compare members with each other: children with their parents, and equal weights with the records."""

from collections import defaultdict
from collections.abc import Mapping

from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.records import MemberRecord, layout
from vitzoo.verification.members import Findings, Scope, load_records
from vitzoo.verification.problems import Problems

_OTHER_FAMILY = "Get the members of one zoo, or train the child again."


def check_lineage(scope: Scope, findings: Mapping[MemberId, Findings]) -> None:
    """Add a problem for every child that did not start from its parent as both record it."""
    parents = dict(findings)
    for child in findings.values():
        record, parent = child.record, child.member.parent_id
        if record is not None and parent is not None:
            if parent not in parents:
                parents[parent] = _load_parent(scope, parent)
            _check_child(scope, child, record, parents[parent])
        elif record is not None and record.parent is not None:
            child.problems.add(f"says parent {shown(record.parent)}; a parent has none", file="member.json")


def check_equal_weights(findings: Mapping[MemberId, Findings]) -> None:
    """Add a problem for equal weights that the records do not explain.

    At epoch 0, children of one parent with one head and head seed are equal, and so are parents with one
    initialisation. Digests of weights that were not read come from metrics.jsonl.
    """
    first_places: dict[str, dict[object, tuple[MemberId, int]]] = defaultdict(dict)  # by weights, then by origin
    for member in findings.values():
        if member.record is not None:  # otherwise it has a problem already
            for epoch, weights_id in _weights_ids(member, member.record).items():
                origin = _origin(member, member.record, epoch)
                first_places[weights_id].setdefault(origin, (member.member, epoch))
    for places in first_places.values():
        first, *others = places.values()
        for member, epoch in others:
            findings[member].problems.add(
                f"epoch {epoch} has the same weights as {first[0]} at epoch {first[1]}, which no record explains",
                fix="One was copied over the other: get both again, or train them again.",
            )


def _load_parent(scope: Scope, parent: MemberId) -> Findings:
    findings = Findings(member=parent, problems=Problems(parent))
    names = []
    for file in (layout.member_file(parent), layout.metrics_file(parent)):
        with findings.problems.collecting():
            if scope.source.path(file).is_file():
                names.append(file.name)
    load_records(scope, findings, names)
    return findings


def _check_child(scope: Scope, child: Findings, record: MemberRecord, parent: Findings) -> None:
    name, start, epoch = parent.member, parent.record, record.parent_epoch

    def add(what: str, file: str = "member.json") -> None:
        child.problems.add(what, file=file, fix=_OTHER_FAMILY)

    if record.parent != str(name):
        child.problems.add(f'says parent {shown(record.parent)}; expected "{name}"', file="member.json")
    if start is None:
        why = "".join(f": {problem.what}" for problem in list(parent.problems)[:1])
        add(f"its parent {name} is missing or has no sound member.json{why}", "")
        return
    if start.status != "completed":
        add(f"its parent {name} is {start.status}, not completed", "")
    if record.init_group != start.init_group:
        add(f"says init_group {shown(record.init_group)}, its parent {shown(start.init_group)}")
    sha256s = {weights.epoch: weights.sha256 for weights in start.weights}
    sha256s.setdefault(start.epochs, sha256s.get(None, ""))
    if epoch is None or epoch not in sha256s:
        add(f"says parent_epoch {shown(epoch)}, but {name} has no such weights")
        return
    listed = scope.file_record(layout.weights_file(name, epoch))
    if listed is None and epoch == start.epochs:
        listed = scope.file_record(layout.weights_file(name))
    expected = {f"{name} says {{}} of its weights": sha256s[epoch]}
    if listed is not None:
        expected[f"{layout.MANIFEST} says {{}} of the weights of {name}"] = listed.sha256
    for by, sha256 in expected.items():
        if record.parent_sha256 != sha256:
            given = shown((record.parent_sha256 or "")[:16])
            add(f"says parent_sha256 {given}, but {by.format(shown(sha256[:16]))} at epoch {epoch}")
    first = next((metrics.backbone_id for metrics in child.metrics if metrics.epoch == 0), None)
    last = next((metrics.backbone_id for metrics in parent.metrics if metrics.epoch == epoch), None)
    if first is not None and last is not None and first != last:
        add(f"does not start at epoch 0 with the backbone of {name} at epoch {epoch}", "metrics.jsonl")


def _weights_ids(findings: Findings, record: MemberRecord) -> dict[int, str]:
    """Return the digest of every epoch's weights, as read or else as recorded. The last epoch has the final weights."""
    recorded = {metrics.epoch: metrics.weights_id for metrics in findings.metrics if metrics.weights_id is not None}
    last = record.epochs if record.status == "completed" else max(recorded, default=0)
    read = {last if epoch is None else epoch: digest for epoch, digest in findings.weights_ids.items()}
    return recorded | read


def _origin(findings: Findings, record: MemberRecord, epoch: int) -> object:
    """Return a key that is equal for weights that the records explain as equal."""
    member = findings.member
    if epoch != 0:
        return (member, epoch)
    start = record.init_seed if member.is_parent else (member.parent_id, record.parent_epoch)
    labels = None if findings.config is None else findings.config.num_labels
    return (start, record.head_type, record.head_width, record.head_seed, labels)
