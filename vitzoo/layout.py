"""Where everything lies in a zoo: relative paths only, with forward slashes, for a folder and a Hub repo alike.

The trainer writes and the loader reads through these functions; no other module joins a member's paths.
What the files say is in `vitzoo.records` and `vitzoo.metadata`.
"""

from pathlib import PurePosixPath

from vitzoo.ids import MemberId

ZOO_JSON = PurePosixPath("zoo.json")
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
    return member_folder(member) / "member.json"


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
