"""The files of one member that are published, each of them looked at: what no zoo has stays behind.

Whether weights and records fit together is `training.publish.soundness`' business, which reads every byte.
timing.jsonl, which nothing else reads, is what the trainer writes (`training.member.train`), a line an epoch, or what
an import knows, training and measuring in one:

    {"epoch": 1, "training_seconds": 0.1641, "finished_at": 1795434203.719, "images_per_second": 3900.3,
     "hardware": "AMD EPYC"}
    {"epoch": 1, "seconds": 310.2}
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.publish.files import PlannedFile, existing, reading
from training.publish.privacy import Privacy
from training.publish.verified import Verified
from vitzoo.architectures import load_config_json
from vitzoo.errors import RecordError, WeightsError, shown
from vitzoo.ids import MemberId
from vitzoo.images.processor import load_processor_json
from vitzoo.records import MemberRecord, WeightsRecord, json_files, layout
from vitzoo.sources.folder import FolderSource
from vitzoo.tensors.header import load_header
from vitzoo.zoo.conditions import Epochs

_LONGEST_HARDWARE = 120  # characters; nothing like a log goes into the name of a processor


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timing:
    """A line of timing.jsonl: seconds, seconds since 1970, images a second, the processor's or GPU's name."""

    epoch: int
    training_seconds: float
    finished_at: float
    images_per_second: float | None = None
    hardware: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _ImportedTiming:
    """A line of an imported member's timing.jsonl."""

    epoch: int
    seconds: float


def chosen_weights(record: MemberRecord, epochs: Epochs) -> list[WeightsRecord]:
    """The weights that are published: the final ones, and those of the chosen epochs."""
    wanted = {None, *epochs.of(record.kept_epochs)}
    return [weights for weights in record.weights if weights.epoch in wanted]


def plan_member(
    source: FolderSource, member: MemberId, weights: Sequence[WeightsRecord], privacy: Privacy, verified: Verified
) -> tuple[PlannedFile, ...]:
    """A member's files.

    Args:
        source: The zoo.
        member: The member.
        weights: Its weights files that go along.
        privacy: What no file may hold.
        verified: Weights files that need not be opened again.

    Raises:
        RecordError: A record is damaged, or a file missing.
        ConfigError: Its config says what no member may say.
        WeightsError: A weights file is not what its record says.
        UnsafePathError: A file is a link.
        TrainingError: A file cannot be read, or holds what is never published.
    """
    load_config_json(existing(source, layout.config_file(member)))
    load_processor_json(existing(source, layout.image_processor_file(member)))
    texts = [layout.config_file(member), layout.image_processor_file(member), layout.member_file(member)]
    texts.append(layout.metrics_file(member))
    if source.path(layout.timing_file(member)).is_file():
        texts.append(layout.timing_file(member))
    files = []
    for relative in texts:
        path = existing(source, relative)
        with reading(path):
            file = PlannedFile.of(relative, path.read_bytes())
        if relative == layout.timing_file(member):
            check_timings(file.read(), path)
        privacy.check(file.path, file.read())
        files.append(file)
    return (*files, *(_plan_weights(source, member, found, privacy, verified) for found in weights))


def _plan_weights(
    source: FolderSource, member: MemberId, weights: WeightsRecord, privacy: Privacy, verified: Verified
) -> PlannedFile:
    relative = layout.weights_file(member, weights.epoch)
    path = existing(source, relative)
    if path.stat().st_size != weights.size:
        raise WeightsError(
            f"{path} has {path.stat().st_size} bytes, but the record of {member} says {weights.size}; nothing was "
            "sent. Train the member again, or get the folder again.",
            path=path,
        )
    planned = PlannedFile(path=str(relative), size=weights.size, sha256=weights.sha256, content=path)
    if verified.holds(planned):
        return planned
    with reading(path):
        first = min((entry.start for entry in load_header(path).values()), default=weights.size)
        with open(path, "rb") as file:
            privacy.check(str(relative), file.read(first))  # the header may hold texts
    return planned


def check_timings(content: bytes, path: Path) -> None:
    """Refuse a timing.jsonl that is not what the trainer or an import writes.

    Args:
        content: The file.
        path: Where it is from.

    Raises:
        RecordError: A line is something else.
    """
    try:
        lines = content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        lines = [""]
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        try:
            value = json_files.parse_json(line, place, path)
            is_imported = isinstance(value, dict) and "seconds" in value
            timing = json_files.parse_record(_ImportedTiming if is_imported else _Timing, value, place, path)
        except RecordError as error:
            raise _no_timing(str(error).rstrip("."), path) from None
        hardware = "" if isinstance(timing, _ImportedTiming) else timing.hardware
        if len(hardware) > _LONGEST_HARDWARE or not hardware.isprintable():
            raise _no_timing(f"{place}: hardware is {shown(hardware)}", path)
        if json_files.json_line(value) != line:  # a key twice, say, of which only the last is read
            raise _no_timing(f"{place} is written in another way", path)


def _no_timing(what: str, path: Path) -> RecordError:
    return RecordError(
        f"{what}: this is not the timing.jsonl that the trainer writes. Take {path} away, which no member needs, or "
        "get it again.",
        path=path,
    )


def left_out(source: FolderSource, member: MemberId, record: MemberRecord) -> Iterator[str]:
    """Files in a member's folder that are neither its records nor weights that it has on record."""
    folder = layout.member_folder(member)
    weights = {layout.weights_name(found.epoch) for found in record.weights}
    for entry in sorted(os.scandir(source.root / folder), key=lambda entry: entry.name):
        path = str(folder / entry.name)
        known = layout.is_zoo_file(path) and (not layout.is_weights_name(entry.name) or entry.name in weights)
        if not known and not (entry.is_dir() and MemberId.match(path)):
            yield path
