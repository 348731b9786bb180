"""One member's files, held against its records, its config and the manifest.

What it shares with other members is `vitzoo.verification.relations`' business.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from vitzoo import records
from vitzoo.architectures import describe_misfit, is_head
from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.images.processor import load_processor_json
from vitzoo.models.loading import MemberConfig
from vitzoo.models.registry import load_member_config
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import file_sha256
from vitzoo.records.manifest import FileRecord, Manifest
from vitzoo.sources.source import ZooSource
from vitzoo.tensors.content import WeightsContent, load_content
from vitzoo.verification.problems import AGAIN, Problems
from vitzoo.zoo.zoo import Zoo

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_REQUIRED = (layout.config_file, layout.image_processor_file, layout.member_file, layout.metrics_file)
_UNNAMED = "Take it away, or publish the zoo again."
_GET = "Get the file again; of a copy that was to hold a part, look at that part: --epochs, --where."


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What of a zoo is looked at, and what it is held against.

    Args:
        zoo: The zoo.
        manifest: Its manifest, where there is one that can be read.
        published: Which epochs the manifest says were published; all without one.
        epochs: Which epochs are looked at.
        count_file: Called with the size of each file that was read.
    """

    zoo: Zoo
    manifest: Manifest | None
    published: Epochs
    epochs: Epochs
    count_file: Callable[[int], None]

    @property
    def source(self) -> ZooSource:
        """Where the zoo is."""
        return self.zoo.source

    def file_record(self, relative: PurePosixPath) -> FileRecord | None:
        """What the manifest says of a file."""
        return None if self.manifest is None else self.manifest.files.get(str(relative))


@dataclass(kw_only=True, slots=True)
class Findings:
    """What was found of a member.

    Args:
        member: Its id.
        problems: What is wrong.
        record: Its member.json; None where that cannot be read, or is another member's.
        metrics: Its metrics.jsonl; empty where that cannot be read.
        config: Its config.json; None where that cannot be read.
        processor: Its preprocessor_config.json, likewise.
        weights_ids: Epochs to the digests of the weights looked at; None is the final ones.
    """

    member: MemberId
    problems: Problems
    record: records.MemberRecord | None = None
    metrics: list[records.EpochRecord] = field(default_factory=list)
    config: MemberConfig | None = None
    processor: dict[str, Any] | None = None
    weights_ids: dict[int | None, str] = field(default_factory=dict)


def check_member(scope: Scope, member: MemberId, files: Collection[str], *, weights: bool = True) -> Findings:
    """Look at every file of a member.

    Args:
        scope: What is looked at.
        member: The member.
        files: The names of the files in its folder, and of those that the manifest names there.
        weights: Whether weights files are read.

    Returns:
        What was found; an error of one file keeps no other from being looked at.
    """
    findings = Findings(member=member, problems=Problems(member))
    names = {file(member).name for file in _REQUIRED} | {name for name in files if not layout.is_weights_name(name)}
    sound = {name for name in sorted(names) if _check_small_file(scope, findings, name)}
    load_records(scope, findings, sound)
    if findings.record is not None:
        _check_record(findings, findings.record)
    epochs = {layout.parse_weights_name(name) for name in files if layout.is_weights_name(name)}
    if findings.record is not None:
        epochs |= set(scope.published.of(weights.epoch for weights in findings.record.weights))
    kept = sorted(epochs, key=lambda epoch: (epoch is None, epoch))
    for epoch in kept:
        _check_weights_name(scope, findings, epoch)
    for epoch in scope.epochs.of(kept) if weights else ():
        name = layout.weights_name(epoch)
        with findings.problems.collecting(file=name):
            _check_weights_file(scope, findings, epoch, name)
    return findings


def load_records(scope: Scope, findings: Findings, names: Collection[str]) -> None:
    """Read those of a member's records and configs that are there."""
    source, member, problems = scope.source, findings.member, findings.problems
    if (path := layout.config_file(member)).name in names:
        with problems.collecting():
            findings.config = load_member_config(source.path(path))
            if (path := layout.image_processor_file(member)).name in names:
                findings.processor = load_processor_json(source.path(path), model=findings.config.to_dict())
    if (path := layout.member_file(member)).name in names:
        with problems.collecting():
            record = records.load_member_record(source.path(path))
            if record.id == str(member):
                findings.record = record
            else:
                problems.add(f"says id {shown(record.id)}, but lies in the folder of {member}", file=path.name)
    if (path := layout.metrics_file(member)).name in names:
        with problems.collecting():
            findings.metrics = records.load_epoch_records(source.path(path))


def check_against_manifest(scope: Scope, problems: Problems, relative: PurePosixPath, name: str) -> Path | None:
    """Whether a file that is no weights file is there, with the size and hash of the manifest.

    Returns:
        Its path; None where it is not there.
    """
    expected = scope.file_record(relative)
    path = _find(scope, problems, relative, name)
    if path is None:
        return None
    size = path.stat().st_size
    if expected is not None and size != expected.size:
        problems.add(_wrong_size(size, expected.size, "manifest.json"), file=name)
    elif expected is not None and (found := file_sha256(path)) != expected.sha256:
        problems.add(_wrong_hash(found, expected.sha256, "manifest.json"), file=name)
    scope.count_file(size)
    return path


def _check_small_file(scope: Scope, findings: Findings, name: str) -> bool:
    """Whether a file is there that is no weights file and that a member may have."""
    relative = layout.member_folder(findings.member) / name
    known = layout.is_zoo_file(str(relative))
    if scope.manifest is not None and relative not in scope.manifest:
        label = name if known else shown(name)
        findings.problems.add("not named by manifest.json", file=label, fix=_UNNAMED)
    if not known:
        return False
    with findings.problems.collecting(file=name):
        return check_against_manifest(scope, findings.problems, relative, name) is not None
    return False


def _find(scope: Scope, problems: Problems, relative: PurePosixPath, name: str, by: str = "") -> Path | None:
    path = scope.source.path(relative)
    if path.is_file():
        return path
    by = "manifest.json" if scope.file_record(relative) is not None else by
    what = f"missing, though {by} names it" if by else "missing, though every member has one"
    problems.add(what, file=name, fix=_GET if by == "manifest.json" else AGAIN)
    return None


def _wrong_size(found: int, expected: int, by: str) -> str:
    how = "truncated" if found < expected else "too long"
    return f"has {found} bytes, but {by} says {expected}: it is {how}"


def _wrong_hash(found: str, expected: str, by: str) -> str:
    return f"has sha256 {found[:16]}..., but {by} says {expected[:16]}...: it was altered"


def _check_record(findings: Findings, record: records.MemberRecord) -> None:
    """A member.json against itself, metrics.jsonl and config.json."""
    problems, member_json, metrics_jsonl = findings.problems, "member.json", "metrics.jsonl"
    recorded = [weights.epoch for weights in record.weights]
    if len(set(recorded)) != len(recorded):
        problems.add("names the weights of an epoch twice", file=member_json)
    if record.status == "completed" and None not in recorded:
        problems.add("names no final weights, though the member is completed", file=member_json)
    config = findings.config
    for name in ("head_type", "head_width", "head_role") if config is not None else ():
        found, expected = getattr(record, name), getattr(config, name)
        if found != expected:
            problems.add(f"says {name} {shown(found)}, but config.json {shown(expected)}", file=member_json)
    if not findings.metrics:
        return
    for number, metrics in enumerate(findings.metrics):
        if metrics.epoch != number:
            problems.add(f"line {number + 1} is of epoch {metrics.epoch}; expected {number}", file=metrics_jsonl)
            break
    last = findings.metrics[-1].epoch
    if last > record.epochs or (record.status == "completed" and last != record.epochs):
        problems.add(f"ends at epoch {last}; member.json says {record.epochs} epochs", file=metrics_jsonl)
    if record.status == "completed":
        without = [epoch for epoch in recorded if epoch is not None and epoch > last]
        if without:
            problems.add(f"names weights of epoch {without[0]}, of which there are no figures", file=member_json)


def _recorded(findings: Findings, epoch: int | None) -> records.WeightsRecord | None:
    weights = findings.record.weights if findings.record is not None else ()
    return next((its for its in weights if its.epoch == epoch), None)


def _check_weights_name(scope: Scope, findings: Findings, epoch: int | None) -> None:
    """A weights file is one that the records name, whether it is looked at or not."""
    problems, name = findings.problems, layout.weights_name(epoch)
    recorded, named = _recorded(findings, epoch), scope.file_record(layout.weights_file(findings.member, epoch))
    if findings.record is not None and recorded is None:
        problems.add("not named by member.json", file=name, fix="Take it away, or train the member again.")
    if scope.manifest is not None and named is None and (recorded is None or scope.published.of([epoch])):
        problems.add("not named by manifest.json", file=name, fix=_UNNAMED)


def _check_weights_file(scope: Scope, findings: Findings, epoch: int | None, name: str) -> None:
    problems, record = findings.problems, findings.record
    relative = layout.weights_file(findings.member, epoch)
    recorded, named = _recorded(findings, epoch), scope.file_record(relative)
    if record is not None and recorded is None and named is None:
        return  # it is to be taken away, whatever it holds
    path = _find(scope, problems, relative, name, "member.json")
    if path is None:
        return
    size, altered = path.stat().st_size, False
    expectations = [(by, said) for by, said in (("member.json", recorded), ("manifest.json", named)) if said]
    for by, said in expectations:
        if size != said.size:
            problems.add(_wrong_size(size, said.size, by), file=name)
            altered = True
    if altered:
        return
    content = load_content(path, is_head=is_head)
    scope.count_file(size)
    for by, said in expectations:
        if content.sha256 != said.sha256:
            problems.add(_wrong_hash(content.sha256, said.sha256, by), file=name)
            altered = True
    _check_tensors(findings, content, name)
    good = record is None or record.status == "completed" or _was_measured(findings, epoch)
    if good and content.not_finite:
        problems.add(f"{content.not_finite[0]} holds NaN or infinity", file=name, fix="Train the member again.")
    if good and not altered:
        _check_content_ids(findings, epoch, content, name)
    findings.weights_ids[epoch] = content.weights_id


def _was_measured(findings: Findings, epoch: int | None) -> bool:
    """Whether these weights of a member that was not completed are of a good epoch, and not beyond its last."""
    return epoch is not None and any(metrics.epoch == epoch for metrics in findings.metrics)


def _check_tensors(findings: Findings, content: WeightsContent, name: str) -> None:
    """Names, shapes and types of the tensors are those of config.json."""
    config, record, problems = findings.config, findings.record, findings.problems
    if config is not None:
        misfit = describe_misfit(config.shape, content.shapes)
        if misfit is not None:
            problems.add(f"does not hold what config.json says: {misfit}", file=name)
        expected = _DTYPES.get(str(config.dtype).removeprefix("torch."))
        other = [f"{tensor} is {entry.dtype}" for tensor, entry in content.tensors.items() if entry.dtype != expected]
        if expected is not None and other:
            problems.add(f"{other[0]}; config.json says {expected}", file=name)
    parameters = sum(prod(shape) for shape in content.shapes.values())
    if record is not None and parameters != record.num_parameters:
        problems.add(f"has {parameters} parameters, but member.json says {record.num_parameters}", file=name)


def _check_content_ids(findings: Findings, epoch: int | None, content: WeightsContent, name: str) -> None:
    """The weights are those that were measured: the final ones those of the last epoch."""
    if epoch is None and findings.record is not None:
        epoch = findings.record.epochs
    for metrics in findings.metrics[-1:] if epoch is None else [m for m in findings.metrics if m.epoch == epoch]:
        for key in ("weights_id", "backbone_id"):
            found, expected = getattr(content, key), getattr(metrics, key)
            if found != expected:
                said = "none" if expected is None else shown(expected[:16])
                findings.problems.add(
                    f"has {key} {found[:16]}..., but metrics.jsonl says {said} of epoch "
                    f"{metrics.epoch}: these are other weights than those that were measured",
                    file=name,
                    fix=AGAIN,
                )
                break
