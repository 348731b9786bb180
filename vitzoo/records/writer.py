"""MemberWriter: the last steps that make a folder a member, for the trainer and for importers.

A member is complete or absent. Its files are written into an unfinished folder, member.json last;
`publish` syncs them and makes the member appear by one rename.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.files import link_or_copy, sync
from vitzoo.records.json_files import write_json, write_lines
from vitzoo.records.members import EpochRecord, MemberRecord, TimingRecord, WeightsRecord


class MemberWriter:
    """Writes a member's files into its unfinished folder, on the same file system as the zoo."""

    def __init__(self, folder: Path, member: MemberId):
        self.folder, self.member = folder, member

    def weights_file(self, epoch: int | None) -> Path:
        """Return the path of an epoch's weights; of the final ones for None."""
        return self.folder / layout.weights_name(epoch)

    def link_final_weights(self, last: WeightsRecord) -> WeightsRecord:
        """Make the last epoch's weights the final ones, too, and return their record."""
        link_or_copy(self.weights_file(last.epoch), self.weights_file(None))
        return msgspec.structs.replace(last, epoch=None)

    def write_records(
        self,
        record: MemberRecord,
        *,
        metrics: Iterable[EpochRecord],
        timings: Iterable[TimingRecord],
        configs: Sequence[Any],
    ) -> None:
        """Write configs of transformers, metrics, timings, and member.json last."""
        for config in configs:
            config.save_pretrained(self.folder)
        write_lines(self.folder / layout.metrics_file(self.member).name, metrics)
        write_lines(self.folder / layout.timing_file(self.member).name, timings)
        write_json(self.folder / layout.member_file(self.member).name, record)

    def publish(self, root: Path, *, check: Callable[[], None] | None = None) -> None:
        """Make the finished member appear in a zoo: sync its files, then rename its folder.

        Args:
            root: The zoo's folder.
            check: Called just before the rename; it raises if this process may not publish any more.

        Raises:
            OSError: The folder cannot be renamed, for instance because the member exists.
        """
        target = root / layout.member_folder(self.member)
        for path in (*self.folder.iterdir(), self.folder):
            sync(path)
        if check is not None:
            check()
        os.rename(self.folder, target)
        sync(target.parent)
