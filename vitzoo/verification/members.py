"""Check one member's files against its records, its config and the manifest.

See `vitzoo.verification.relations` for checks between members.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isclose, prod
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vitzoo import records
from vitzoo.architectures import describe_misfit, is_head, load_architecture
from vitzoo.errors import VitZooError, shown
from vitzoo.ids import MemberId
from vitzoo.images.processor import load_processor_json
from vitzoo.models.config import MemberConfig
from vitzoo.models.registry import load_member_config
from vitzoo.records import layout
from vitzoo.records.copies import CopyRecord
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import RecordedFile, describe_difference, file_sha256
from vitzoo.records.manifest import FileRecord, Manifest
from vitzoo.sources.source import ZooSource
from vitzoo.tensors.content import WeightsContent, load_content
from vitzoo.tensors.dtypes import SAFETENSORS
from vitzoo.text.tokenizer import Tokenizer, check_tokenizer, load_tokenizer
from vitzoo.verification.problems import Problems
from vitzoo.zoo.zoo import Zoo

_ROUNDING = 1e-6
_REQUIRED = (layout.config_file, layout.member_file, layout.metrics_file)
_UNNAMED = "Delete it, or publish the zoo again."
_GET = 'Get the file again. A copy made by "vitzoo download --to" may have a part of a zoo.'


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """The checked files of a zoo, and the manifest."""

    zoo: Zoo
    manifest: Manifest | None  # None if it is missing or cannot be read
    published: Epochs  # by the manifest; all without one
    copied: CopyRecord | None  # of a partial copy
    epochs: Epochs  # to check
    count_file: Callable[[int], None]  # called with the size of each file that was read

    @property
    def source(self) -> ZooSource:
        """The zoo's files."""
        return self.zoo.source

    def expects(self, relative: PurePosixPath) -> bool:
        """Return whether a file of the zoo must exist: a partial copy has only some."""
        return self.copied is None or self.copied.includes(relative)

    def file_record(self, relative: PurePosixPath) -> FileRecord | None:
        """Return the manifest's record of a file."""
        return None if self.manifest is None else self.manifest.files.get(str(relative))


@dataclass(kw_only=True, slots=True)
class Findings:
    """The problems of a checked member, and the contents of its files as far as they can be read."""

    member: MemberId
    problems: Problems
    record: records.MemberRecord | None = None  # also None if it is another member's
    metrics: list[records.EpochRecord] = field(default_factory=list)
    config: MemberConfig | None = None
    processor: dict[str, Any] | None = None  # of images
    tokenizer: Tokenizer | None = None
    saved: list[int | None] = field(default_factory=list)  # epochs with weights; None means the final weights
    weights_ids: dict[int | None, str] = field(default_factory=dict)  # digests of the checked weights by epoch
    start: Path | None = None  # the weights of epoch 0, if they were checked and have no problem

    def weights_record(self, epoch: int | None) -> records.WeightsRecord | None:
        """Return the record of an epoch's weights in member.json."""
        weights = self.record.weights if self.record is not None else ()
        return next((record for record in weights if record.epoch == epoch), None)


def check_member(scope: Scope, member: MemberId, files: Collection[str], *, weights: bool = True) -> Findings:
    """Check every file of a member; the names are those in its folder and in the manifest."""
    findings = Findings(member=member, problems=Problems(member))
    saved = {layout.parse_weights_name(name) for name in files if layout.is_weights_name(name)}
    paths = [*(file(member) for file in _REQUIRED), *layout.processor_files(member, _modality(scope, member))]
    required = {path.name for path in paths if scope.expects(path)}
    if not required <= set(files) and _is_imported(scope, member):
        required -= {path.name for path in paths[len(_REQUIRED) :]}
    names = required | {name for name in files if not layout.is_weights_name(name)}
    load_records(scope, findings, {name for name in sorted(names) if _check_small_file(scope, findings, name)})
    if findings.record is not None:
        _check_record(findings, findings.record)
        recorded = scope.published.of(record.epoch for record in findings.record.weights)
        saved |= {epoch for epoch in recorded if scope.expects(layout.weights_file(member, epoch))}
    findings.saved = sorted(saved, key=lambda epoch: (epoch is None, epoch))
    for epoch in findings.saved:
        _check_weights_name(scope, findings, epoch)
    for epoch in scope.epochs.of(findings.saved) if weights else ():
        name = layout.weights_name(epoch)
        with findings.problems.collecting(file=name):
            _check_weights_file(scope, findings, epoch, name)
    return findings


def _modality(scope: Scope, member: MemberId) -> Literal["images", "text"]:
    """Return the kind of data that a member reads; images if its config cannot be read."""
    with suppress(VitZooError):
        return load_architecture(scope.source.path(layout.config_file(member))).modality
    return "images"


def _is_imported(scope: Scope, member: MemberId) -> bool:
    """Return whether a member was imported, perhaps from a folder that does not say how its inputs are prepared."""
    with suppress(VitZooError):
        return records.load_member_record(scope.source.path(layout.member_file(member))).origin is not None
    return False


def load_records(scope: Scope, findings: Findings, names: Collection[str]) -> None:
    """Read a member's records and configs, as far as their files are among the given names."""
    source, member, problems = scope.source, findings.member, findings.problems
    if (path := layout.config_file(member)).name in names:
        with problems.collecting():
            findings.config = load_member_config(source.path(path))
            if (path := layout.image_processor_file(member)).name in names:
                findings.processor = load_processor_json(source.path(path), model=findings.config.to_dict())
            paths = [path for path in layout.processor_files(member, "text") if path.name in names]
            if len(local := [source.path(path) for path in paths]) == 2:
                findings.tokenizer = load_tokenizer(local[0].parent)
                check_tokenizer(findings.tokenizer, vocab_size=findings.config.vocab_size, by="config.json")
    if (path := layout.member_file(member)).name in names:
        with problems.collecting():
            record = records.load_member_record(source.path(path))
            if record.id == str(member):
                findings.record = record
            else:
                problems.add(f"says id {shown(record.id)}, but is in the folder of {member}", file=path.name)
    if (path := layout.metrics_file(member)).name in names:
        with problems.collecting():
            findings.metrics = records.load_epoch_records(source.path(path))


def check_against_manifest(scope: Scope, problems: Problems, relative: PurePosixPath, name: str) -> bool:
    """Compare a file other than weights with the manifest, and return whether it exists."""
    path, expected = _find_file(scope, problems, relative, name), scope.file_record(relative)
    if path is None:
        return False
    size = path.stat().st_size
    if expected is not None:
        sha256 = file_sha256(path) if size == expected.size else None
        _check_content(problems, name, {"manifest.json": expected}, size=size, sha256=sha256)
    scope.count_file(size)
    return True


def _check_small_file(scope: Scope, findings: Findings, name: str) -> bool:
    """Check a file other than weights, and return whether it exists and a member may have it."""
    relative = layout.member_folder(findings.member) / name
    known = layout.is_zoo_file(str(relative))
    if scope.manifest is not None and relative not in scope.manifest:
        findings.problems.add("not named by manifest.json", file=name if known else shown(name), fix=_UNNAMED)
    exists = False
    if known:
        with findings.problems.collecting(file=name):
            exists = check_against_manifest(scope, findings.problems, relative, name)
    return exists


def _find_file(scope: Scope, problems: Problems, relative: PurePosixPath, name: str, by: str = "") -> Path | None:
    path = scope.source.path(relative)
    if path.is_file():
        return path
    if scope.file_record(relative) is not None:
        problems.add("missing, though manifest.json names it", file=name, fix=_GET)
    else:
        problems.add(f"missing, though {f'{by} names it' if by else 'every member has one'}", file=name)
    return None


def _check_content(
    problems: Problems, name: str, expected: Mapping[str, RecordedFile], *, size: int, sha256: str | None = None
) -> bool:
    """Compare a file with its records by the names of their files, and return whether it agrees with all."""
    differences = [describe_difference(record, size=size, sha256=sha256, by=by) for by, record in expected.items()]
    for difference in filter(None, differences):
        problems.add(difference, file=name)
    return not any(differences)


def _check_record(findings: Findings, record: records.MemberRecord) -> None:
    """Check a member.json on its own and against metrics.jsonl and config.json."""
    problems, member_json, metrics_jsonl = findings.problems, "member.json", "metrics.jsonl"
    recorded = [weights.epoch for weights in record.weights]
    if len(set(recorded)) != len(recorded):
        problems.add("names the weights of an epoch twice", file=member_json)
    if record.status == "completed" and None not in recorded:
        problems.add("names no final weights, though the member is completed", file=member_json)
    if findings.tokenizer is not None and findings.tokenizer.sha256 != record.tokenizer_sha256:
        problems.add(
            f"is not the tokenizer of member.json, {shown(record.tokenizer_sha256)}", file=layout.TOKENIZER_JSON
        )
    for name in ("head_type", "head_width", "head_role") if findings.config is not None else ():
        value, expected = getattr(record, name), getattr(findings.config, name)
        if value != expected:
            problems.add(f"says {name} {shown(value)}, but config.json {shown(expected)}", file=member_json)
    if not findings.metrics:
        return
    _check_numbers(problems, record, findings.metrics)
    _check_steps(problems, record, findings.metrics)
    last = findings.metrics[-1].epoch
    if last > record.epochs or (record.status == "completed" and last != record.epochs):
        problems.add(f"ends at epoch {last}; member.json says {record.epochs} epochs", file=metrics_jsonl)
    unmeasured = [epoch for epoch in recorded if epoch is not None and epoch > last]
    if record.status == "completed" and unmeasured:
        problems.add(f"names weights of epoch {unmeasured[0]}, which has no metrics", file=member_json)


def _check_numbers(problems: Problems, record: records.MemberRecord, metrics: Sequence[records.EpochRecord]) -> None:
    """Check that lines are of epochs 0, 1, 2, ...; an imported member may have some, ascending."""
    previous = -1
    for number, line in enumerate(metrics):
        expected = f"{number}" if record.origin is None else f"a number above {previous}"
        if line.epoch != number if record.origin is None else line.epoch <= previous:
            what = f"line {number + 1} is of epoch {line.epoch}; expected {expected}"
            problems.add(what, file="metrics.jsonl")
            return
        previous = line.epoch


def _check_steps(problems: Problems, record: records.MemberRecord, metrics: Sequence[records.EpochRecord]) -> None:
    """Compare steps and images with the number of training images and the batch size; the last batch is dropped."""
    if record.n_train is None or record.batch_size is None or record.steps is None:
        return
    per_epoch = record.n_train // max(1, record.batch_size)
    if record.steps != record.epochs * per_epoch:
        what = f"says steps {record.steps} of {record.epochs} epochs, {record.n_train} images in batches of"
        problems.add(f"{what} {record.batch_size}; expected {record.epochs * per_epoch}", file="member.json")
    for line in metrics:
        step = line.epoch * per_epoch
        for key, expected in (("step", step), ("samples_seen", step * record.batch_size)):
            if getattr(line, key) != expected:
                what = f"says {key} {getattr(line, key)} of epoch {line.epoch}; expected {expected}"
                problems.add(what, file="metrics.jsonl")


def _check_weights_name(scope: Scope, findings: Findings, epoch: int | None) -> None:
    """Check that the records name a weights file, even if it is not read."""
    problems, name = findings.problems, layout.weights_name(epoch)
    recorded, listed = findings.weights_record(epoch), scope.file_record(layout.weights_file(findings.member, epoch))
    if findings.record is not None and recorded is None:
        problems.add("not named by member.json", file=name, fix="Delete it, or train the member again.")
    if scope.manifest is not None and listed is None and (recorded is None or scope.published.of([epoch])):
        problems.add("not named by manifest.json", file=name, fix=_UNNAMED)


def _check_weights_file(scope: Scope, findings: Findings, epoch: int | None, name: str) -> None:
    problems, record = findings.problems, findings.record
    relative = layout.weights_file(findings.member, epoch)
    known = {"member.json": findings.weights_record(epoch), "manifest.json": scope.file_record(relative)}
    expected = {by: file for by, file in known.items() if file is not None}
    if record is not None and not expected:
        return  # an unnamed file: `_check_weights_name` says to delete it
    path = _find_file(scope, problems, relative, name, "member.json")
    if path is None:
        return
    size = path.stat().st_size
    if not _check_content(problems, name, expected, size=size):
        return
    content = load_content(path, is_head=is_head, start=path if epoch == 0 else findings.start)
    scope.count_file(size)
    agrees = _check_content(problems, name, expected, size=size, sha256=content.sha256)
    _check_tensors(findings, content, name, epoch)
    # A member that diverged may have NaN after its last measured epoch.
    measured = epoch is not None and any(metrics.epoch == epoch for metrics in findings.metrics)
    if record is None or record.status == "completed" or measured:
        if content.not_finite:
            problems.add(f"{content.not_finite[0]} holds NaN or infinity", file=name, fix="Train the member again.")
        if agrees and _check_weights_ids(findings, epoch, content, name) and not content.not_finite and epoch == 0:
            findings.start = path
    findings.weights_ids[epoch] = content.weights_id


def _check_tensors(findings: Findings, content: WeightsContent, name: str, epoch: int | None) -> None:
    """Compare the tensors' names, shapes and dtypes with config.json; the dtypes of an epoch with member.json."""
    config, record, problems = findings.config, findings.record, findings.problems
    if config is not None:
        misfit = describe_misfit(config.shape, content.shapes)
        if misfit is not None:
            problems.add(f"does not hold what config.json says: {misfit}", file=name)
        recorded = findings.weights_record(epoch)
        dtype = None if epoch is None or recorded is None else recorded.dtype
        expected = SAFETENSORS.get(dtype or str(config.dtype).removeprefix("torch."))
        other = [f"{tensor} is {entry.dtype}" for tensor, entry in content.tensors.items() if entry.dtype != expected]
        if expected is not None and other:
            says = "config.json" if dtype is None else "member.json"
            problems.add(f"{other[0]}; {says} says {expected}", file=name)
    parameters = sum(prod(shape) for shape in content.shapes.values())
    if record is not None and parameters != record.num_parameters:
        problems.add(f"has {parameters} parameters, but member.json says {record.num_parameters}", file=name)


def _check_weights_ids(findings: Findings, epoch: int | None, content: WeightsContent, name: str) -> bool:
    """Compare the weights' digests and norms with metrics.jsonl, and return whether the digests agree.

    Final weights are the last epoch's.
    """
    if epoch is None and findings.record is not None:
        epoch = findings.record.epochs
    for metrics in findings.metrics[-1:] if epoch is None else [m for m in findings.metrics if m.epoch == epoch]:
        for key in ("weights_id", "backbone_id"):
            digest, expected = getattr(content, key), getattr(metrics, key)
            if digest != expected:
                recorded = "none" if expected is None else shown(expected[:16])
                problem = f"has {key} {digest[:16]}..., but metrics.jsonl says {recorded} of epoch {metrics.epoch}"
                findings.problems.add(f"{problem}: other weights were measured", file=name)
                return False
        for key in ("weight_norm", "distance_from_start"):
            norm, recorded = getattr(content, key), getattr(metrics, key)
            if norm is not None and not content.not_finite and not _are_close(norm, recorded, of=content.weight_norm):
                problem = f"has {key} {norm:.9g}, but metrics.jsonl says {shown(recorded)} of epoch {metrics.epoch}"
                findings.problems.add(problem, file=name)
    return True


def _are_close(norm: float, recorded: float | None, *, of: float) -> bool:
    """Return whether two norms are equal to rounding; machines sum in different orders."""
    return recorded is not None and isclose(norm, recorded, rel_tol=_ROUNDING, abs_tol=_ROUNDING**2 * of)
