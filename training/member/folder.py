"""Write the folder of a member while it is trained: files after each epoch, and at the end those of a finished member.

Each epoch writes the weights, a line of metrics.jsonl and of timing.jsonl, and the resume state. Then weights that the
recipe's retention drops are deleted. So the resume state never names a missing file, whenever the process is killed.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

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
from vitzoo.images.processor import image_processor, processor_arguments
from vitzoo.models.vit import VitZooModel
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
        self._work, self._planned, self._keep, self._identity = work, planned, keep, identity
        self._writer = MemberWriter(self.path, planned.id)
        self.metrics: list[records.EpochRecord] = []
        self._timings: list[records.TimingRecord] = []
        self._weights: list[records.WeightsRecord] = []

    @property
    def last_epoch(self) -> int:
        """Return the last finished epoch; -1 before any."""
        return len(self.metrics) - 1

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
        loaded = load_resume_state(self._work.resume_file, self.path, identity=self._identity)
        if loaded is None:
            return None
        state, tensors = loaded
        self.metrics, self._timings, self._weights = list(state.metrics), list(state.timings), list(state.weights)
        named = {self.weights_file(record.epoch or 0) for record in self._weights}
        for path in self.path.iterdir():  # a killed process leaves files that the resume state does not name
            if path not in named:
                path.unlink()
        json_files.write_lines(self._file(layout.metrics_file), self.metrics)
        json_files.write_lines(self._file(layout.timing_file), self._timings)
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
        return record

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
        configs = [model.config, image_processor(arguments)]
        with self._writing("its configs"):
            self._writer.write_records(record, metrics=self.metrics, timings=self._timings, configs=configs)

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

    def _file(self, layout_of: Any) -> Path:
        return self.path / layout_of(self._planned.id).name


def _append(path: Path, record: object) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_files.json_line(record) + "\n")
