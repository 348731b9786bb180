"""The folder of a member while it is trained: what is written after each epoch, and what makes it a member at the end.

Each epoch in this order: the weights, the line of metrics.jsonl, that of timing.jsonl, the resume state; then weights
that are not kept go. Whatever happens between, the resume state names nothing that is not there.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from training.member.checkpoint import (
    EncodedWeights,
    ResumeState,
    encode_weights,
    load_resume_state,
    save_resume_state,
    write_weights,
)
from training.recipes.plan import PlannedMember
from training.recipes.retention import Retention
from training.workspace import Work
from vitzoo import records
from vitzoo.errors import TrainingError
from vitzoo.images.processor import image_processor, processor_arguments
from vitzoo.models.vit import VitZooModel
from vitzoo.progress import in_bytes
from vitzoo.records import json_files, layout
from vitzoo.records.writer import MemberWriter


class MemberFolder:
    """A member's unfinished folder.

    Args:
        work: The member's, held by this process.
        planned: The member.
        keep: Epochs whose weights are kept.
        identity: All that decides its bits: what was written under another one is begun anew.
    """

    def __init__(self, work: Work, planned: PlannedMember, *, keep: Retention, identity: dict[str, Any]):
        self.path = work.member_folder
        self._work, self._planned, self._keep, self._identity = work, planned, keep, identity
        self._writer = MemberWriter(self.path, planned.id)
        self.metrics: list[records.EpochRecord] = []
        self._timings: list[records.TimingRecord] = []
        self._weights: list[records.WeightsRecord] = []

    @property
    def last_epoch(self) -> int:
        """The last finished epoch; -1 before any."""
        return len(self.metrics) - 1

    def weights_file(self, epoch: int) -> Path:
        """Where an epoch's weights lie."""
        return self.path / layout.weights_name(epoch)

    def begin(self) -> None:
        """Start with an empty folder."""
        self._work.check()
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()

    def resume(self) -> dict[str, Tensor] | None:
        """Go on from what is there.

        Returns:
            The optimizer's tensors after `last_epoch`; None where there is nothing that is whole.
        """
        found = load_resume_state(self._work.resume_file, self.path, identity=self._identity)
        if found is None:
            return None
        state, tensors = found
        self.metrics, self._timings, self._weights = list(state.metrics), list(state.timings), list(state.weights)
        named = {self.weights_file(written.epoch or 0) for written in self._weights}
        for path in self.path.iterdir():  # what was written, or not yet deleted, when the process ended
            if path not in named:
                path.unlink()
        json_files.write_lines(self._file(layout.metrics_file), self.metrics)
        json_files.write_lines(self._file(layout.timing_file), self._timings)
        return tensors

    def keep_epoch(
        self, weights: dict[str, Tensor], optimizer: dict[str, Tensor], *, timing: records.TimingRecord, **figures: Any
    ) -> records.EpochRecord:
        """Write an epoch.

        Args:
            weights: The model's state dict, on the CPU.
            optimizer: The optimizer's tensors, likewise.
            timing: The line of timing.jsonl.
            **figures: The fields of `vitzoo.records.EpochRecord` but for the content ids.
        """
        encoded = encode_weights(weights)
        record = records.EpochRecord(weights_id=encoded.weights_id, backbone_id=encoded.backbone_id, **figures)
        with self._writing(f"epoch {record.epoch}, {in_bytes(len(encoded.content))}"):
            self._write_epoch(encoded, optimizer, record, timing)
        return record

    def _write_epoch(
        self,
        encoded: EncodedWeights,
        optimizer: dict[str, Tensor],
        record: records.EpochRecord,
        timing: records.TimingRecord,
    ) -> None:
        self._work.check()  # a machine that slept may still see the folder that is another's by now
        self._weights.append(write_weights(self.path, encoded, epoch=record.epoch))
        self.metrics.append(record)
        _append(self._file(layout.metrics_file), record)
        self._timings.append(timing)
        _append(self._file(layout.timing_file), timing)
        dropped = [
            written.epoch
            for written in self._weights[:-1]
            if written.epoch is not None and not self._keep.keeps(written.epoch, last=self._planned.training.epochs)
        ]
        self._weights = [written for written in self._weights if written.epoch not in dropped]
        state = ResumeState(
            identity=self._identity,
            metrics=tuple(self.metrics),
            timings=tuple(self._timings),
            weights=tuple(self._weights),
        )
        save_resume_state(self._work.resume_file, state, optimizer)
        for epoch in dropped:
            self.weights_file(epoch).unlink(missing_ok=True)

    def final_weights(self, *, completed: bool) -> tuple[records.WeightsRecord, ...]:
        """Return the records of all weights files. A completed member's final one is a link to the last epoch's."""
        if not completed:
            return tuple(self._weights)
        return (*self._weights, self._writer.link_final_weights(self._weights[-1]))

    def write_member(self, record: records.MemberRecord, model: VitZooModel) -> None:
        """Write the files that make the folder a member, member.json last."""
        architecture = self._planned.architecture
        arguments = processor_arguments(
            self._planned.training.dataset.preprocessing,
            image_size=architecture.image_size,
            mean=architecture.mean,
            std=architecture.std,
        )
        with self._writing("its configs"):
            self._writer.write_records(
                record,
                metrics=self.metrics,
                timings=self._timings,
                configs=[model.config, image_processor(arguments)],
            )

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """An error of the disk says what was to be written where, and what to do."""
        try:
            yield
        except OSError as error:
            self._work.check()  # the folder of one that was taken for dead is another's by now
            free = shutil.disk_usage(self.path).free
            raise TrainingError(
                f"{self._planned.id}: {what}, cannot be written to {self.path}: {error.strerror} ("
                f"{in_bytes(free)} are free there)",
                fix="Make room, or keep fewer epochs (--keep last); the same command goes on from the last "
                "finished epoch.",
            ) from error

    def _file(self, of: Any) -> Path:
        return self.path / of(self._planned.id).name


def _append(path: Path, record: object) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_files.json_line(record) + "\n")
