"""Paths of all files in a zoo: relative, with forward slashes, the same for a folder and a Hub repo.

No other module joins a member's paths. See `vitzoo.records.members` and `vitzoo.tables.columns` for the files' content.
"""

import re
from pathlib import PurePosixPath
from typing import Literal

from vitzoo.ids import MemberId, parse_variant

ZOO_JSON = PurePosixPath("zoo.json")
MANIFEST = PurePosixPath("manifest.json")
COPY = PurePosixPath("copy.json")  # of a partial copy; see `vitzoo.records.copies`
README = PurePosixPath("README.md")
MEMBER_JSON = "member.json"
PREPROCESSOR_JSON = "preprocessor_config.json"
TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG_JSON = "tokenizer_config.json"
METADATA = PurePosixPath("metadata")
METADATA_README = METADATA / "README.md"
PICTURES = PurePosixPath("pictures")  # of the card; see `vitzoo.report.write`
TRAINING = PurePosixPath(".training")  # see `training.workspace`


def member_folder(member: MemberId) -> PurePosixPath:
    """Return the folder of a member: its id as a path."""
    return PurePosixPath(str(member))


def config_file(member: MemberId) -> PurePosixPath:
    """Return the path of a member's transformers config."""
    return member_folder(member) / "config.json"


def image_processor_file(member: MemberId) -> PurePosixPath:
    """Return the path of a member's transformers image processor."""
    return member_folder(member) / PREPROCESSOR_JSON


def tokenizer_file(member: MemberId) -> PurePosixPath:
    """Return the path of a text member's tokenizer."""
    return member_folder(member) / TOKENIZER_JSON


def tokenizer_config_file(member: MemberId) -> PurePosixPath:
    """Return the path of the settings with which transformers loads a text member's tokenizer."""
    return member_folder(member) / TOKENIZER_CONFIG_JSON


def processor_files(member: MemberId, modality: Literal["images", "text"]) -> tuple[PurePosixPath, ...]:
    """Return the paths of the files that prepare a member's inputs: an image processor, or a tokenizer."""
    if modality == "images":
        return (image_processor_file(member),)
    return tokenizer_file(member), tokenizer_config_file(member)


def member_file(member: MemberId) -> PurePosixPath:
    """Return the path of a `vitzoo.records.MemberRecord`."""
    return member_folder(member) / MEMBER_JSON


def metrics_file(member: MemberId) -> PurePosixPath:
    """Return the path of the lines of `vitzoo.records.EpochRecord`."""
    return member_folder(member) / "metrics.jsonl"


def timing_file(member: MemberId) -> PurePosixPath:
    """Return the path of the lines of `vitzoo.records.TimingRecord`."""
    return member_folder(member) / "timing.jsonl"


def weights_file(member: MemberId, epoch: int | None = None) -> PurePosixPath:
    """Return the path of the weights after ``epoch`` finished epochs; of the final weights for None."""
    return member_folder(member) / weights_name(epoch)


def weights_name(epoch: int | None = None) -> str:
    """Return a weights file's name inside its member's folder, as transformers spells its ``variant``."""
    return "model.safetensors" if epoch is None else f"model.{variant_name(epoch)}.safetensors"


def variant_name(epoch: int) -> str:
    """Return the transformers ``variant`` of an epoch: ``epoch-07``. The inverse is `vitzoo.ids.parse_variant`."""
    return f"epoch-{epoch:02d}"


def table_file(table: str) -> PurePosixPath:
    """Return the path of a table, such as ``members``."""
    return METADATA / f"{table}.parquet"


def picture_file(name: str) -> PurePosixPath:
    """Return the path of a picture of the card, such as ``tree``."""
    return PICTURES / f"{name}.png"


def parse_member_file(path: PurePosixPath) -> tuple[MemberId, str] | None:
    """Return the member of a file and the file's name; None for a path outside of members' folders."""
    member = MemberId.match(str(path.parent))
    return member and (member, path.name)


def is_weights_name(name: str) -> bool:
    """Return whether `weights_name` makes this name."""
    return name == weights_name() or parse_weights_name(name) is not None


def parse_weights_name(name: str) -> int | None:
    """Return the epoch of a weights file's name, the inverse of `weights_name`; None for the final weights."""
    match = _WEIGHTS.fullmatch(name)
    return None if match is None else parse_variant(match["variant"])


def is_zoo_file(path: str) -> bool:
    """Return whether this module makes a path. A published zoo has no other files."""
    relative = PurePosixPath(path)
    if str(relative) != path:
        return False
    if relative in (ZOO_JSON, README, METADATA_README):
        return True
    if relative.parent == METADATA:
        return _TABLE.fullmatch(relative.name) is not None
    if relative.parent == PICTURES:
        return _PICTURE.fullmatch(relative.name) is not None
    _, name = parse_member_file(relative) or (None, "")
    return name in _MEMBER_FILES or is_weights_name(name)


_TABLE = re.compile(r"[a-z]{1,40}\.parquet")
_PICTURE = re.compile(r"[a-z][a-z0-9_-]{0,80}\.png")
_WEIGHTS = re.compile(r"model\.(?P<variant>epoch-(?:\d{2}|[1-9]\d{2,8}))\.safetensors", re.ASCII)
_MEMBER_FILES = {
    file(MemberId(0)).name
    for file in (
        config_file,
        image_processor_file,
        tokenizer_file,
        tokenizer_config_file,
        member_file,
        metrics_file,
        timing_file,
    )
}
