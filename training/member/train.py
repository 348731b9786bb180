"""One member, start to done: idempotent, locked, resumable.

`train_member` finds out by itself what is left to do. Killed at any moment and called again, it goes on from the last
finished epoch and ends with the same bytes. It runs through Accelerate, so far in one process a member.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import ViTImageProcessorPil

from training.environment import SAME_BITS, git_commit, hardware, versions
from training.images.loader import iter_batches
from training.member.checkpoint import (
    ResumeState,
    encode_weights,
    load_resume_state,
    load_weights,
    restore_optimizer,
    save_resume_state,
    write_weights,
)
from training.member.initialisation import initialise
from training.member.measure import Measurement, weight_distance, weight_norm
from training.member.record import member_record
from training.member.step import learning_rate, make_optimizer, training_loss
from training.recipes.plan import PlannedMember
from training.workspace import Workspace
from vitzoo import json_files, layout, records
from vitzoo.configuration_vitzoo import VitZooConfig
from vitzoo.errors import TrainingError
from vitzoo.images import ImageDataset, load_images
from vitzoo.modeling_vitzoo import VitZooModel

Report = Callable[[int], None]


def train_member(workspace: Workspace, planned: PlannedMember, *, report: Report = lambda epoch: None) -> None:
    """Train a member until it stands finished in the zoo; at once where it does already.

    Args:
        workspace: The zoo folder, of the member's recipe.
        planned: The member.
        report: Called with the number of finished epochs, after each.

    Raises:
        TrainingError: Its parent is not finished, its data are not the recipe's, another process is training it, or the
            loss is no longer finite.
    """
    if not workspace.is_done(planned.id):
        with workspace.lock(planned.id):
            if not workspace.is_done(planned.id):
                _Run(workspace, planned).to_the_end(report)
                workspace.publish(planned.id)
    workspace.discard(planned.id)


class _Run:
    """The training of one member in this process."""

    def __init__(self, workspace: Workspace, planned: PlannedMember):
        self.workspace, self.planned = workspace, planned
        self.folder = workspace.unfinished(planned.id)
        # Said here rather than by the environment of `accelerate launch`: the record says what was done.
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", dynamo_backend="no")
        if self.accelerator.num_processes > 1:
            raise TrainingError(
                f"{planned.id} was started in {self.accelerator.num_processes} processes; so far one trains a member."
            )
        self.dataset = _load_dataset(planned)
        self.parent = None if planned.id.parent_id is None else self._parent_record(workspace)
        model = self._initial_model()
        self.measurement = Measurement.of(planned, self.dataset)
        self.images = torch.from_numpy(self.dataset.train.images).to(self.accelerator.device)
        self.labels = torch.from_numpy(self.dataset.train.labels).to(self.accelerator.device)
        self.metrics: list[records.EpochRecord] = []
        self.timings: list[dict[str, Any]] = []
        self.weights: list[records.WeightsRecord] = []
        self.model = self.accelerator.prepare(model)  # on the device from here on
        self.start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        # Accelerate's own optimizer serves fp16's scaler, which is not used, and costs .5 ms a step.
        self.optimizer = make_optimizer(planned.training.optimizer, model)

    def to_the_end(self, report: Report) -> None:
        """Every epoch that is left, and the files that make the folder a member."""
        if not self._resume():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._finish_epoch(0, running_loss=None, seconds=0.0)
        report(len(self.metrics) - 1)
        for epoch in range(len(self.metrics), self.planned.training.epochs + 1):
            started = time.perf_counter()
            running_loss = self._train_epoch(epoch)
            self._finish_epoch(epoch, running_loss=running_loss, seconds=time.perf_counter() - started)
            report(epoch)
        self._write_member()

    def _train_epoch(self, epoch: int) -> float:
        training, architecture = self.planned.training, self.planned.architecture
        total = torch.zeros((), device=self.accelerator.device)
        step = (epoch - 1) * training.steps_per_epoch
        self.model.train()
        for batch in iter_batches(
            self.images,
            self.labels,
            training,
            classes=self.planned.head.outputs,
            mean=architecture.mean,
            std=architecture.std,
            seeds=self.planned.seeds,
            epoch=epoch - 1,
        ):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(training, step)
            loss = training_loss(self.model, batch, training)
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            total += loss.detach()
            step += 1
        return float(total) / training.steps_per_epoch

    def _finish_epoch(self, epoch: int, *, running_loss: float | None, seconds: float) -> None:
        """Measure, keep the weights, and only then say so in the resume state."""
        training = self.planned.training
        model = self.accelerator.unwrap_model(self.model)
        step = epoch * training.steps_per_epoch
        encoded = encode_weights(model)
        tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        model.eval()
        figures = {
            "train_loss_running": running_loss,
            **self.measurement.figures(model),
            "weight_norm": weight_norm(tensors),
            "distance_from_start": weight_distance(tensors, self.start),
        }
        self._check_finite(epoch, figures)
        record = records.EpochRecord(
            epoch=epoch,
            step=step,
            samples_seen=step * training.batch_size,
            learning_rate=learning_rate(training, max(step - 1, 0)),
            weights_id=encoded.weights_id,
            backbone_id=encoded.backbone_id,
            **figures,  # pyright: ignore[reportArgumentType]
        )
        self.weights.append(write_weights(self.folder, encoded, epoch=epoch))
        self.metrics.append(record)
        _append(self._file(layout.metrics_file), record)
        timing = {"epoch": epoch, "training_seconds": round(seconds, 4), "finished_at": round(time.time(), 3)}
        if seconds:
            images = training.steps_per_epoch * training.batch_size
            timing["images_per_second"] = round(images / seconds, 1)
        self.timings.append(timing | {"hardware": hardware(self.accelerator.device.type)})
        _append(self._file(layout.timing_file), self.timings[-1])
        state = ResumeState(
            identity=self._identity(),
            metrics=tuple(self.metrics),
            timings=tuple(self.timings),
            weights=tuple(self.weights),
        )
        save_resume_state(self.workspace.resume_file(self.planned.id), state, self.optimizer)

    def _check_finite(self, epoch: int, figures: dict[str, float | None]) -> None:
        training = self.planned.training
        for name, value in figures.items():
            if value is not None and not math.isfinite(value):
                raise TrainingError(
                    f"{self.planned.id}: {name} is {value} after epoch {epoch}, at learning rate "
                    f"{training.optimizer.learning_rate:g} and batch size {training.batch_size}. "
                    "Lower the learning rate in the recipe."
                )

    def _resume(self) -> bool:
        found = load_resume_state(self.workspace.resume_file(self.planned.id), self.folder, identity=self._identity())
        if found is None:
            return False
        state, tensors = found
        last = self.folder / layout.weights_name(state.metrics[-1].epoch)
        load_weights(self.accelerator.unwrap_model(self.model), last)
        restore_optimizer(self.optimizer, tensors)
        self.metrics, self.timings, self.weights = list(state.metrics), list(state.timings), list(state.weights)
        json_files.write_lines(self._file(layout.metrics_file), self.metrics)
        json_files.write_lines(self._file(layout.timing_file), self.timings)
        return True

    def _write_member(self) -> None:
        final = self.weights[-1]
        path = self.folder / layout.weights_name()
        path.unlink(missing_ok=True)
        try:
            os.link(self.folder / layout.weights_name(final.epoch), path)
        except OSError:  # a file system without hard links
            shutil.copyfile(self.folder / layout.weights_name(final.epoch), path)
        self.accelerator.unwrap_model(self.model).config.save_pretrained(self.folder)
        size = {"height": self.planned.architecture.image_size, "width": self.planned.architecture.image_size}
        ViTImageProcessorPil(
            size=size,
            image_mean=list(self.planned.architecture.mean),
            image_std=list(self.planned.architecture.std),
            do_convert_rgb=True,
        ).save_pretrained(self.folder)
        record = member_record(
            self.planned,
            dataset=self.dataset,
            parent=self.parent,
            weights=(*self.weights, records.WeightsRecord(epoch=None, size=final.size, sha256=final.sha256)),
            ranks=self.accelerator.num_processes,
            deviations=tuple(self.workspace.source.record.recipe["deviations"]),
        )
        json_files.write_json(self._file(layout.member_file), record)

    def _identity(self) -> str:
        """Digest of all that decides this member's bits."""
        return json_files.json_sha256(
            {
                "id": str(self.planned.id),
                "recipe": self.workspace.source.record.recipe_sha256,
                "dataset": self.dataset.fingerprint,
                "parent": None if self.parent is None else self.parent.final_weights.sha256,
                "versions": versions(),
                "commit": git_commit(),
                "hardware": hardware(self.accelerator.device.type),
                "environment": {name: os.environ.get(name) for name in SAME_BITS},
            }
        )

    def _parent_record(self, workspace: Workspace) -> records.MemberRecord:
        parent = self.planned.id.parent_id
        if parent is None or not workspace.is_done(parent):
            raise TrainingError(
                f"{self.planned.id} starts from {parent}, which is not finished in {workspace.root}. "
                f"Train {parent} first."
            )
        return workspace.source.member_record(parent)

    def _initial_model(self) -> VitZooModel:
        planned = self.planned
        labels = dict(enumerate(self.dataset.classes))
        if planned.head.role == "embedding":
            labels = {i: str(i) for i in range(planned.head.outputs)}  # VitZooConfig keeps their number alone
        shape = planned.architecture
        config = VitZooConfig(
            image_size=shape.image_size,
            patch_size=shape.patch_size,
            num_channels=len(shape.mean),
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            intermediate_size=shape.intermediate_size,
            id2label=labels,
            label2id={name: label for label, name in labels.items()},
            head_type=planned.head.type,
            head_width=planned.head.width,
            head_role=planned.head.role,
            architectures=[VitZooModel.__name__],
            dtype="float32",
        )
        model = VitZooModel(config)
        initialise(model, init_seed=planned.seeds.init, head_seed=planned.seeds.head)
        if self.parent is not None:
            folder = self.workspace.source.path(layout.member_folder(self.parent.member))
            model.vit.load_state_dict(VitZooModel.from_pretrained(folder, verify=True).vit.state_dict())
        return model

    def _file(self, of: Callable) -> Path:
        return self.folder / of(self.planned.id).name


def _load_dataset(planned: PlannedMember) -> ImageDataset:
    wanted = planned.training.dataset
    dataset = load_images(wanted.images)
    if len(dataset.train) != wanted.train_images:
        raise TrainingError(
            f"{planned.id}: the recipe says {wanted.train_images} training images of {wanted.name}, "
            f"there are {len(dataset.train)}. Mend the recipe, or install the data that it was written for."
        )
    if planned.head.role == "classifier" and len(dataset.classes) != planned.head.outputs:
        raise TrainingError(
            f"{planned.id}: the recipe's head has {planned.head.outputs} outputs, {wanted.name} has "
            f"{len(dataset.classes)} classes. Mend the recipe."
        )
    return dataset


def _append(path: Path, record: object) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_files.json_line(record) + "\n")
