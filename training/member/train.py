"""One member, start to done: idempotent, locked, resumable.

`train_member` finds out by itself what is left to do. Killed at any moment and called again, it goes on from the last
finished epoch and ends with the same bytes. It runs through Accelerate, in one process or several; rank 0 alone reads
and writes the zoo, and tells the others.

What a member starts from is `start.py`'s, a step `step.py`'s, what is said meanwhile `watch.py`'s, and its folder
`folder.py`'s.
"""

import contextlib
import dataclasses
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator

from training.environment import SAME_BITS, code_digest, hardware, versions
from training.images.loader import Batches
from training.member.background import Background, HostCopy
from training.member.checkpoint import load_weights, optimizer_tensors, restore_optimizer
from training.member.execution import Execution
from training.member.folder import MemberFolder
from training.member.measure import Measurement, first_not_finite, shown_accuracy, weight_distance, weight_norm
from training.member.memory import explain, least_rows, try_rows, what_fits
from training.member.peak import matrix_product_rate
from training.member.record import member_record
from training.member.report import Diverged, Report
from training.member.start import build_model, compile_backbone, load_backbone, load_dataset, parent_record
from training.member.step import Stepper, learning_rate, make_optimizer
from training.member.tracking import Tracking, check_trackers
from training.member.watch import Watch
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from training.workspace import Work, Workspace
from vitzoo import records
from vitzoo.errors import TrainingError

Say = Callable[[Report], None]


def train_member(
    workspace: Workspace,
    planned: PlannedMember,
    *,
    execution: Execution | None = None,
    report: Say = lambda _: None,
    parent_sha256: str | None = None,
    patience: float = 0.0,
) -> records.MemberRecord:
    """Train a member until it stands finished in the zoo; at once where it does already.

    Args:
        workspace: The zoo folder, of the member's recipe.
        planned: The member.
        execution: How it is carried out on this machine.
        report: Told after each epoch, once its files are written, and now and then between.
        parent_sha256: Of its parent's final weights, which are waited for: they may have been written a moment ago on
            another machine. None for those that stand there.
        patience: Seconds to wait for another process that holds the member.

    Returns:
        Its record: ``completed``, or ``diverged`` where its loss did not stay finite: an outcome, not an error.

    Raises:
        LeaseHeld: Another process is training it.
        LeaseLost: This process was not heard of for so long that another one took over.
        TrainingError: Its parent is not finished or another one, its data are not the recipe's, or it does not fit on
            this machine.
    """
    execution = execution or Execution()
    check_trackers(execution.track)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",  # said here and below rather than by the environment of `accelerate launch`
        dynamo_backend="no",
        log_with=list(execution.track) or None,
        project_dir=str(workspace.tracking_folder(planned.id)),
    )
    ranks = Ranks(index=accelerator.process_index, count=accelerator.num_processes)
    if not ranks.broadcast(workspace.is_done(planned.id)):
        parent = parent_record(workspace, planned, sha256=parent_sha256)
        hold = _hold(workspace, planned, patience) if ranks.is_main else contextlib.nullcontext()
        with hold as work:
            if not ranks.broadcast(work is not None and workspace.look_again(planned.id)):
                run = _Run(workspace, planned, execution, accelerator, ranks, report, parent=parent, work=work)
                try:
                    run.to_the_end()
                except torch.OutOfMemoryError as error:
                    raise TrainingError(
                        f"{planned.id}: the GPU's memory is full outside of training steps, with images or figures: "
                        f"{error}. End what else is on the card, or take a larger one."
                    ) from error
                finally:
                    run.close()
                if work is not None:
                    workspace.publish(work)
    if ranks.is_main:
        workspace.discard(planned.id)
    ranks.barrier()
    return workspace.source.member_record(planned.id)


@contextlib.contextmanager
def _hold(workspace: Workspace, planned: PlannedMember, patience: float) -> Iterator[Work]:
    """Hold a member. What fails for its files' being gone is said to be what it is: another process took over."""
    with workspace.hold(planned.id, patience=patience) as work:
        try:
            yield work
        except OSError:
            work.check()
            raise


class _Run:
    """The training of one member in this process."""

    def __init__(
        self,
        workspace: Workspace,
        planned: PlannedMember,
        execution: Execution,
        accelerator: Accelerator,
        ranks: Ranks,
        report: Say,
        *,
        parent: records.MemberRecord | None,
        work: Work | None,
    ):
        self.planned, self.execution, self.accelerator, self.ranks = planned, execution, accelerator, ranks
        self.training, self.report, self.device = planned.training, report, accelerator.device
        self.peak = matrix_product_rate(self.training.precision) if self.device.type == "cuda" else None
        self.parent = parent
        self.deviations = tuple(workspace.source.record.recipe["deviations"])
        self.dataset = load_dataset(planned, execution)
        self.folder = work and MemberFolder(work, planned, keep=execution.keep, identity=self._identity(workspace))
        backbone = None if parent is None else load_backbone(workspace, parent)
        self.model = build_model(planned, self.dataset.classes, backbone=backbone)
        self.model.to(self.device)
        if ranks.is_main:
            self.start = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        # Accelerate's own optimizer serves fp16's scaler, which is not used, and costs .5 ms a step.
        self.optimizer = make_optimizer(self.training.optimizer, self.model)
        self.accuracy: float | None = None
        self.finished = self._resume()
        compile_backbone(self.model, execution.compile_mode)
        self.stepper = Stepper(
            accelerator.prepare(self.model),  # DistributedDataParallel where there are several ranks
            self.optimizer,
            self.training,
            ranks=ranks,
            accumulation=execution.accumulation,
        )
        self.measurement = Measurement.of(
            planned, self.dataset, device=self.device, ranks=ranks, workers=execution.decoders
        )
        self.batches = Batches(
            self.dataset.train,
            self.training,
            classes=planned.head.outputs,
            mean=planned.architecture.mean,
            std=planned.architecture.std,
            seeds=planned.seeds,
            image_size=planned.architecture.image_size,
            device=self.device,
            ranks=ranks,
            workers=execution.decoders,
        )
        self.tracking = Tracking(accelerator, planned, workspace.root)
        self.background = Background()

    def close(self) -> None:
        """End the thread and the trackers, whatever became of the training."""
        self.background.close()
        self.batches.close()
        self.measurement.close()
        self.tracking.close()

    def to_the_end(self) -> None:
        """Every epoch that is left, and the files that make the folder a member."""
        diverged = None
        try:
            if self.finished < 0:
                if self.folder is not None:
                    self.folder.begin()
                self._finish_epoch(0, running_loss=None, seconds=0.0)
            for epoch in range(max(self.finished, 0) + 1, self.training.epochs + 1):
                running_loss, seconds = self._train_epoch(epoch)
                self._finish_epoch(epoch, running_loss=running_loss, seconds=seconds)
        except Diverged as outcome:
            diverged = outcome
        self.background.wait()
        if self.folder is not None and self.folder.last_epoch < 0:
            raise TrainingError(f"{self.planned.id}: {diverged}, though nothing was trained. Mend the recipe.")
        if self.folder is not None:
            self._write_member(self.folder, diverged)

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Every step of an epoch: the mean loss, and the seconds it took."""
        step = (epoch - 1) * self.training.steps_per_epoch
        watch = Watch(
            self.device,
            first_step=step,
            images_per_step=self.training.batch_size,
            ranks=self.ranks,
            look=lambda done, loss, speed: self._look(epoch - 1, done, loss, speed),
        )
        self.model.train()
        try:
            for batch in self.batches.epoch(epoch - 1):
                watch.step(self.stepper(batch, step))
                step += 1
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold what the failed step had kept
            self.optimizer.zero_grad()
            raise TrainingError(self._out_of_memory()) from error
        return watch.end()

    def _finish_epoch(self, epoch: int, *, running_loss: float | None, seconds: float) -> None:
        """Measure, and have the weights kept in the background; only then is the epoch said to be finished."""
        step = epoch * self.training.steps_per_epoch
        self.model.eval()
        figures = self.measurement.figures(self.model)  # by all ranks together
        tensors = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        if self.ranks.is_main:
            figures |= {
                "train_loss_running": running_loss,
                "weight_norm": weight_norm(tensors),
                "distance_from_start": weight_distance(tensors, self.start),
            }
        wrong = self.ranks.broadcast(first_not_finite(figures))
        if wrong is not None:
            raise Diverged(step, wrong)
        if (folder := self.folder) is None:
            return
        self.accuracy = accuracy = shown_accuracy(figures)
        speed = self.training.steps_per_epoch * self.training.batch_size / seconds if seconds else None
        weights, state = HostCopy(tensors), HostCopy(optimizer_tensors(self.optimizer))
        timing = {"epoch": epoch, "training_seconds": round(seconds, 4), "finished_at": round(time.time(), 3)}
        if speed is not None:
            timing["images_per_second"] = round(speed, 1)
        timing["hardware"] = hardware(self.device.type)

        def keep() -> None:
            record = folder.keep_epoch(
                weights.wait(),
                state.wait(),
                timing=timing,
                epoch=epoch,
                step=step,
                samples_seen=step * self.training.batch_size,
                learning_rate=learning_rate(self.training, max(step - 1, 0)),
                **figures,
            )
            self.tracking.log(record)
            self._say(epoch, step=0, loss=running_loss, speed=speed, accuracy=accuracy)

        self.background.submit(keep)

    def _look(self, epoch: int, step: int, loss: float, speed: float) -> None:
        """Now and then inside an epoch: say where it stands, and end it at once where the disk is full."""
        self.background.check()
        self._say(epoch, step=step, loss=loss, speed=speed, accuracy=self.accuracy)

    def _say(self, epoch: int, *, step: int, loss: float | None, speed: float | None, accuracy: float | None) -> None:
        if not self.ranks.is_main:
            return
        share = None
        if speed is not None and self.peak is not None:
            share = speed * self.training.views * self.planned.image_flops / (self.peak * self.ranks.count)
        self.report(
            Report(
                epoch=epoch,
                step=step,
                steps=self.training.steps_per_epoch,
                loss=loss,
                accuracy=accuracy,
                images_per_second=speed,
                peak_share=share,
            )
        )

    def _resume(self) -> int:
        """Go on from what rank 0 finds on disk; the last finished epoch, -1 where there is none."""
        found = None if self.folder is None else self.folder.resume()
        last = self.ranks.broadcast(-1 if self.folder is None or found is None else self.folder.last_epoch)
        if last < 0:
            return last
        if self.folder is not None:
            load_weights(self.model, self.folder.weights_file(last))  # the others get them from this rank's model
            self.accuracy = shown_accuracy(dataclasses.asdict(self.folder.metrics[-1]))
            self._say(last, step=0, loss=None, speed=None, accuracy=self.accuracy)
        restore_optimizer(self.optimizer, self.ranks.broadcast(found))
        return last

    def _write_member(self, folder: MemberFolder, diverged: Diverged | None) -> None:
        record = member_record(
            self.planned,
            dataset=self.dataset,
            parent=self.parent,
            weights=folder.final_weights(completed=diverged is None),
            ranks=self.ranks.count,
            compiled=self.execution.compile_mode,
            deviations=self.deviations,
            diverged=diverged,
            last_epoch=folder.last_epoch,
        )
        folder.write_member(record, self.model)

    def _identity(self, workspace: Workspace) -> dict[str, Any]:
        """All that decides this member's bits, as far as they are promised."""
        promised = self.device.type == "cpu" or self.execution.deterministic
        return {
            "member": str(self.planned.id),
            "recipe": workspace.source.record.recipe_sha256,
            "dataset": self.dataset.fingerprint,
            "parent": None if self.parent is None else self.parent.final_weights.sha256,
            "versions": versions(),
            "code": code_digest(),
            "hardware": hardware(self.device.type) if promised else self.device.type,
            "environment": {name: os.environ.get(name) for name in SAME_BITS},
            "compile": self.execution.compile_mode,
            "deterministic": self.execution.deterministic,
            "accumulation": self.execution.accumulation,
            "ranks": self.ranks.count,
        }

    def _out_of_memory(self) -> str:
        rows = self.training.batch_size // self.ranks.count // self.execution.accumulation
        attempt = try_rows(
            self.model,
            self.training,
            image_size=self.planned.architecture.image_size,
            classes=self.planned.head.outputs,
        )
        return explain(
            self.planned.id,
            self.training,
            ranks=self.ranks.count,
            accumulation=self.execution.accumulation,
            parts=what_fits(attempt, rows, least=least_rows(self.training)),
        )
