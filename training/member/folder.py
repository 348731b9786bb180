"""Write the folder of a member: files after each epoch of its training, and its records and configs at the end.

Each epoch writes the weights, a line of metrics.jsonl and of timing.jsonl, and the resume state. Then weights that the
recipe's retention drops are deleted. So the resume state never names a missing file, whenever the process is killed.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from training.batch import Inputs
from training.member.checkpoint import (
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
from vitzoo.models.loading import MemberModel
from vitzoo.progress import in_bytes
from vitzoo.records import json_files, layout
from vitzoo.records.writer import MemberWriter


class MemberFolder:
    """A member's unfinished folder.

    Args:
        work: Work of the member, which this process holds.
        planned: Member of the folder.
        keep: Epochs whose weights are saved.
        identity: Every input that decides the member's bits. Files of another identity are not resumed from.
    """

    def __init__(self, work: Work, planned: PlannedMember, *, keep: Retention, identity: dict[str, Any]):
        self.path = work.member_folder
        self._work, self._planned, self._keep = work, planned, keep
        self._writer = MemberWriter(self.path, planned.id)
        self.state = ResumeState(identity=identity)

    @property
    def last_epoch(self) -> int:
        """Return the last finished epoch; -1 before any."""
        return len(self.state.metrics) - 1

    def weights_file(self, epoch: int) -> Path:
        """Return the path of an epoch's weights."""
        return self.path / layout.weights_name(epoch)

    def begin(self) -> None:
        """Start with an empty folder."""
        self._work.check()
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()

    def resume(self) -> dict[str, Tensor] | None:
        """Resume from the folder's files.

        Returns:
            The optimizer's tensors after `last_epoch`; None without a whole resume state.
        """
        loaded = load_resume_state(self._work.resume_file, self.path, identity=self.state.identity)
        if loaded is None:
            return None
        self.state, tensors = loaded
        named = {self.weights_file(record.epoch or 0) for record in self.state.weights}
        for path in self.path.iterdir():  # a killed process leaves files that the resume state does not name
            if path not in named:
                path.unlink()
        json_files.write_lines(self._file(layout.metrics_file), self.state.metrics)
        json_files.write_lines(self._file(layout.timing_file), self.state.timings)
        return tensors

    def keep_epoch(
        self, weights: dict[str, Tensor], optimizer: dict[str, Tensor], *, timing: records.TimingRecord, **metrics: Any
    ) -> records.EpochRecord:
        """Write an epoch.

        Args:
            weights: State dict of the model, on the CPU.
            optimizer: Tensors of the optimizer, on the CPU.
            timing: Line of timing.jsonl.
            **metrics: Fields of `vitzoo.records.EpochRecord`, without the content ids.
        """
        encoded = encode_weights(weights)
        record = records.EpochRecord(weights_id=encoded.weights_id, backbone_id=encoded.backbone_id, **metrics)
        with self._writing(f"epoch {record.epoch}, {in_bytes(len(encoded.content))}"):
            self._work.check()  # a machine that slept may still see the folder after another took over
            state = self.state
            state.weights.append(write_weights(self.path, encoded, epoch=record.epoch))
            state.metrics.append(record)
            _append(self._file(layout.metrics_file), record)
            state.timings.append(timing)
            _append(self._file(layout.timing_file), timing)
            dropped = [
                written
                for written in state.weights[:-1]
                if not self._keep.keeps(written.epoch or 0, last=self._planned.training.epochs)
            ]
            state.weights[:] = [written for written in state.weights if written not in dropped]
            save_resume_state(self._work.resume_file, state, optimizer)
            for written in dropped:
                self.weights_file(written.epoch or 0).unlink(missing_ok=True)
        return record

    def final_weights(self, *, completed: bool) -> tuple[records.WeightsRecord, ...]:
        """Return the records of all weights files. A completed member's final one is a link to the last epoch's."""
        if not completed:
            return tuple(self.state.weights)
        return (*self.state.weights, self._writer.link_final_weights(self.state.weights[-1]))

    def write_member(self, record: records.MemberRecord, model: MemberModel, inputs: Inputs) -> None:
        """Write the files that make the folder a member, member.json last."""
        with self._writing("its configs"):
            inputs.save(self.path)
            self._writer.write_records(
                record, metrics=self.state.metrics, timings=self.state.timings, configs=[model.config]
            )

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Raise an error that names what could not be written, where, and how to continue."""
        try:
            yield
        except OSError as error:
            self._work.check()  # another process may have taken over the folder
            free = in_bytes(shutil.disk_usage(self.path).free)
            raise TrainingError(
                f"{self._planned.id}: {what}, cannot be written to {self.path}: {error.strerror} ({free} are free)",
                fix="Make room, or save fewer epochs (--keep last). The same command resumes from the last finished "
                "epoch.",
            ) from error

    def _file(self, path_in_zoo: Any) -> Path:
        return self.path / path_in_zoo(self._planned.id).name


def _append(path: Path, record: object) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_files.json_line(record) + "\n")
