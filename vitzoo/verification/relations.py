"""Compare members with each other: children with their parents, equal weights with the records, and configs.

Configs and image processors are also compared with the records and with the recipe's architecture.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from vitzoo.architectures import find_architecture
from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.models.config import MemberConfig
from vitzoo.records import MemberRecord, layout
from vitzoo.verification.members import Findings, Scope, load_records
from vitzoo.verification.problems import Problems

_OTHER_FAMILY = "Get the members of one zoo, or train the child again."

_CONFIG, _PROCESSOR = (file(MemberId(0)).name for file in (layout.config_file, layout.image_processor_file))
_RECIPE_KEYS_OF_PROCESSOR = {"mean": "image_mean", "std": "image_std"}  # the size was compared with config.json
_SHARED_KEYS_OF_PROCESSOR = ("resample", "do_resize", "do_center_crop")  # equal for members with the same images
_SHARED_KEYS_OF_DATA = ("n_val", "n_test", "dataset_fingerprint")  # equal for members with the same data set


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
    if epoch is None and record.parent_sha256 is None and record.origin is not None:
        return  # an import that does not know the parent's checkpoint
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


def check_configs(scope: Scope, findings: Mapping[MemberId, Findings]) -> None:
    """Add the problems of configs and image processors with the records, the recipe and each other."""
    architecture = scope.source.record.recipe.get("architecture")
    for member in findings.values():
        if member.config is not None and member.record is not None:
            _check_classes(member.problems, member.config, member.record)
        if isinstance(architecture, dict):
            _check_recipe(member, architecture)
    _check_shared(findings)


def _check_classes(problems: Problems, config: MemberConfig, record: MemberRecord) -> None:
    """Compare a classifier's class names with member.json."""
    if config.head_role != "classifier":
        return
    names = [name for _, name in sorted((config.id2label or {}).items())]
    for label, (name, expected) in enumerate(zip_longest(names, record.classes)):
        if name != expected:
            problems.add(f"names class {label} {shown(name)}, but member.json {shown(expected)}", file=_CONFIG)
            return


def _check_recipe(member: Findings, architecture: dict[str, Any]) -> None:
    """Compare a member with the recipe's architecture, as far as the recipe has the keys."""
    compared = []
    if (config := member.config) is not None:
        keys = find_architecture(config.model_type).recipe_keys
        compared += [(_CONFIG, key, getattr(config, key), key) for key in keys]
    if (processor := member.processor) is not None:
        compared += [(_PROCESSOR, key, processor[key], name) for name, key in _RECIPE_KEYS_OF_PROCESSOR.items()]
    for file, key, value, name in compared:
        if name in architecture and value != architecture[name]:
            expected = _format(architecture[name])
            member.problems.add(f"says {key} {_format(value)}, but the recipe in zoo.json {expected}", file=file)


def _check_shared(findings: Mapping[MemberId, Findings]) -> None:
    """Compare each shared value with the most frequent one; of two equally frequent ones the first is expected."""
    configs = {member: result.config for member, result in findings.items() if result.config is not None}
    imported = {member for member, result in findings.items() if result.record and result.record.origin is not None}
    architectures = [find_architecture(config.model_type) for config in configs.values()]
    free = {key for architecture in architectures if imported for key in architecture.training_keys}
    keys = dict.fromkeys(key for architecture in architectures for key in architecture.shared_keys if key not in free)
    shared = [(_CONFIG, key, {member: getattr(config, key) for member, config in configs.items()}) for key in keys]
    by_images: dict[object, dict[MemberId, dict[str, Any]]] = {}
    for member, result in findings.items():
        if result.processor is not None and not (member in imported and result.record and not result.record.dataset):
            images = None if result.record is None else (result.record.dataset, result.record.stage)
            by_images.setdefault(images, {})[member] = result.processor
    for processors in by_images.values():
        shared += [
            (_PROCESSOR, key, {member: processor.get(key) for member, processor in processors.items()})
            for key in _SHARED_KEYS_OF_PROCESSOR
        ]
        edges = {member: processor["size"].get("shortest_edge") for member, processor in processors.items()}
        shared.append((_PROCESSOR, "shortest_edge", edges))
    tokenizers = {member: result.tokenizer for member, result in findings.items() if result.tokenizer is not None}
    for key in ("sha256", "vocab_size"):
        values = {member: getattr(tokenizer, key) for member, tokenizer in tokenizers.items()}
        shared.append((layout.TOKENIZER_JSON, key, values))
    by_data: dict[object, dict[MemberId, MemberRecord]] = {}
    for member, result in findings.items():
        if (record := result.record) is not None and record.dataset is not None:
            by_data.setdefault((record.dataset, record.dataset_spec, record.text_spec), {})[member] = record
    for records in by_data.values():
        for key in _SHARED_KEYS_OF_DATA:
            values = {member: getattr(record, key) for member, record in records.items()}
            shared.append(
                ("member.json", key, {member: value for member, value in values.items() if value is not None})
            )
    for file, key, values in shared:
        for expected, count in Counter(values.values()).most_common(1):
            for member, value in values.items():
                if value != expected:
                    frequent = f"{count} of {len(values)} members {shown(expected)}"
                    findings[member].problems.add(f"says {key} {shown(value)}, but {frequent}", file=file)


def _format(value: Any) -> str:
    return f"[{', '.join(map(shown, value[:4]))}]" if isinstance(value, list) else shown(value)
