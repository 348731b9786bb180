"""Where everything lies in a zoo: relative paths only, with forward slashes, for a folder and a Hub repo alike.

The trainer writes and the loader reads through these functions; no other module joins a member's paths.
What the files say is in `vitzoo.records` and `vitzoo.tables.columns`.
"""

import re
from pathlib import PurePosixPath

from vitzoo.ids import MemberId, parse_variant

ZOO_JSON = PurePosixPath("zoo.json")
MANIFEST = PurePosixPath("manifest.json")
README = PurePosixPath("README.md")
MEMBER_JSON = "member.json"
METADATA = PurePosixPath("metadata")
METADATA_README = METADATA / "README.md"
TRAINING = PurePosixPath(".training")  # the trainer's own: see `training.workspace`


def member_folder(member: MemberId) -> PurePosixPath:
    """The folder of a member: its id, read as a path."""
    return PurePosixPath(str(member))


def config_file(member: MemberId) -> PurePosixPath:
    """The member's transformers config."""
    return member_folder(member) / "config.json"


def image_processor_file(member: MemberId) -> PurePosixPath:
    """The member's transformers image processor."""
    return member_folder(member) / "preprocessor_config.json"


def member_file(member: MemberId) -> PurePosixPath:
    """The member's identity and provenance (`vitzoo.records.MemberRecord`)."""
    return member_folder(member) / MEMBER_JSON


def metrics_file(member: MemberId) -> PurePosixPath:
    """One record an epoch (`vitzoo.records.EpochRecord`)."""
    return member_folder(member) / "metrics.jsonl"


def timing_file(member: MemberId) -> PurePosixPath:
    """Clock times and hardware, one record an epoch; never part of a member's identity."""
    return member_folder(member) / "timing.jsonl"


def weights_file(member: MemberId, epoch: int | None = None) -> PurePosixPath:
    """The weights after ``epoch`` finished epochs; the final ones for None."""
    return member_folder(member) / weights_name(epoch)


def weights_name(epoch: int | None = None) -> str:
    """A weights file's name inside its member's folder, as transformers spells its ``variant``."""
    return "model.safetensors" if epoch is None else f"model.{variant_name(epoch)}.safetensors"


def variant_name(epoch: int) -> str:
    """The transformers ``variant`` of an epoch: ``epoch-07``. The inverse is `vitzoo.ids.parse_variant`."""
    return f"epoch-{epoch:02d}"


def table_file(table: str) -> PurePosixPath:
    """A table of the zoo's metadata, such as ``members``."""
    return METADATA / f"{table}.parquet"


def parse_member_file(path: PurePosixPath) -> tuple[MemberId, str] | None:
    """The member whose folder a file lies in, and the file's name; None for what is no file of a member."""
    member = MemberId.match(str(path.parent))
    return member and (member, path.name)


def is_weights_name(name: str) -> bool:
    """Whether `weights_name` makes this name."""
    return name == weights_name() or (
        (match := _WEIGHTS.fullmatch(name)) is not None and weights_name(parse_variant(match["variant"])) == name
    )


def parse_weights_name(name: str) -> int | None:
    """The epoch of a weights file's name, the inverse of `weights_name`; None for the final weights'."""
    match = _WEIGHTS.fullmatch(name)
    return None if match is None else parse_variant(match["variant"])


def is_zoo_file(path: str) -> bool:
    """Whether a path, as it stands, is one that this module makes: nothing else is a file of a published zoo."""
    relative = PurePosixPath(path)
    if str(relative) != path:
        return False
    if relative in (ZOO_JSON, README, METADATA_README):
        return True
    if relative.parent == METADATA:
        return _TABLE.fullmatch(relative.name) is not None
    found = parse_member_file(relative)
    return found is not None and (found[1] in _MEMBER_FILES or is_weights_name(found[1]))


_TABLE = re.compile(r"[a-z]{1,40}\.parquet")
_WEIGHTS = re.compile(r"model\.(?P<variant>epoch-(?:\d{2}|[1-9]\d{2,8}))\.safetensors", re.ASCII)
_MEMBER_FILES = {
    file(MemberId(0)).name for file in (config_file, image_processor_file, member_file, metrics_file, timing_file)
}
