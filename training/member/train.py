"""Train one member from start to end: idempotent, locked, resumable.

`train_member` finds the remaining work by itself. Killed at any moment and called again, it resumes from the last
finished epoch and ends with the same bytes. It runs through Accelerate, in one process or several. Rank 0 alone reads
and writes the zoo, and broadcasts to the others.

See `start.py` for data, parent and first weights. See `step.py` for a step and `measure.py` for metrics. See
`checkpoint.py` for weights files and the resume state, and `folder.py` for the member's folder.
"""

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from training.environment import SAME_BITS, code_digest, git_commit, hardware, versions
from training.member.checkpoint import (
    CheckpointThread,
    HostCopy,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
)
from training.member.device import make_room, matrix_product_rate, out_of_memory_error
from training.member.execution import Execution, Tracking, check_trackers
from training.member.folder import MemberFolder
from training.member.measure import Measurement, first_not_finite, shown_accuracy, weight_distance, weight_norm
from training.member.published import load_start
from training.member.record import parent_record, planned_fields
from training.member.report import Diverged, Report
from training.member.start import (
    add_pretext,
    build_model,
    compile_parts,
    load_backbone,
    load_inputs,
    saved_tensors,
)
from training.member.step import Stepper, learning_rate, make_optimizer
from training.pretext import Pretext
from training.ranks import Ranks
from training.recipes.plan import PlannedMember
from training.workspace import Work, Workspace
from vitzoo import records
from vitzoo.errors import TrainingError

_PROGRESS_SECONDS = 1.0  # between reports during an epoch
_PRETEXT, _WEIGHTS = "pretext.", "weights."  # before the names of other tensors than the optimizer's in a resume state
OnReport = Callable[[Report], None]


def train_member(
    workspace: Workspace,
    planned: PlannedMember,
    *,
    execution: Execution | None = None,
    report: OnReport = lambda _: None,
    parent_sha256: str | None = None,
    patience: float = 0.0,
) -> records.MemberRecord:
    """Train a member until it is finished in the zoo. Return at once if it already is.

    Args:
        workspace: Zoo folder of the member's recipe.
        planned: Member to train.
        execution: Choices of this machine.
        report: Called after each epoch, once its files are written, and about every second during an epoch.
        parent_sha256: Hash of its parent's final weights. They are waited for, since another machine may have written
            them a moment ago. None for the weights in the folder.
        patience: Seconds to wait for another process that holds the member.

    Returns:
        Its record: ``completed``, or ``diverged`` where its loss became NaN or infinite: a result, not an error.

    Raises:
        LeaseHeld: Another process trains it.
        LeaseLost: Another process took over, since this one did not renew its lease.
        TrainingError: Its parent is not finished or is another one, its data are not the recipe's, or it does not fit
            into this machine's memory.
    """
    execution = execution or Execution()
    check_trackers(execution.track)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",  # set here, so that the environment of `accelerate launch` does not
        dynamo_backend="no",
        log_with=list(execution.track) or None,
        project_dir=str(workspace.tracking_folder(planned.id)),
    )
    ranks = Ranks(index=accelerator.process_index, count=accelerator.num_processes)
    if not ranks.broadcast(workspace.is_done(planned.id)):
        parent = parent_record(workspace, planned, sha256=parent_sha256)
        hold = workspace.hold(planned.id, patience=patience) if ranks.is_main else contextlib.nullcontext()
        with hold as work:
            if not ranks.broadcast(work is not None and workspace.is_done(planned.id, refresh=True)):
                run = _Run(workspace, planned, execution, accelerator, ranks, report, parent=parent, work=work)
                try:
                    run.finish()
                except torch.OutOfMemoryError as error:
                    raise TrainingError(
                        f"{planned.id}: the GPU's memory is full outside of training steps, with data or metrics: "
                        f"{error}",
                        fix=make_room(execution.members_per_gpu),
                    ) from error
                finally:
                    run.close()
                if work is not None:
                    workspace.publish(work)
    if ranks.is_main:
        workspace.discard(planned.id)
    ranks.barrier()
    return workspace.catalogue.member_record(planned.id)


class _Run:
    """The training of one member in this process."""

    def __init__(
        self,
        workspace: Workspace,
        planned: PlannedMember,
        execution: Execution,
        accelerator: Accelerator,
        ranks: Ranks,
        report: OnReport,
        *,
        parent: records.MemberRecord | None,
        work: Work | None,
    ):
        self.planned, self.execution, self.accelerator, self.ranks = planned, execution, accelerator, ranks
        self.training, self.report, self.device = planned.training, report, accelerator.device
        alone = self.device.type == "cuda" and execution.members_per_gpu == 1  # beside others the rate means nothing
        self.peak = matrix_product_rate("cuda", self.training.precision) if alone else None
        # A contrastive image counts once, in both views.
        self.units_per_step = planned.units_per_sample / self.training.views * self.training.batch_size
        self.parent = parent
        self.deviations = tuple(workspace.source.record.recipe["deviations"])
        self.inputs = load_inputs(planned, data=execution.data, parent=parent)
        self.dataset = self.inputs.dataset
        self.tokenizer = getattr(self.dataset, "tokenizer", None)  # of texts
        self.folder = work and MemberFolder(work, planned, keep=execution.keep, identity=self._identity(workspace))
        first = load_start(planned, self.tokenizer) if parent is None else load_backbone(workspace, parent)
        self.model = build_model(planned, self.dataset.classes, first=first)
        self.trained = add_pretext(planned, self.model).to(self.device)  # the model, or what wraps it
        if ranks.is_main:
            self.first_weights = {name: tensor.clone() for name, tensor in saved_tensors(self.model).items()}
        # Accelerate's own optimizer is for fp16's scaler, which is not used here, and costs .5 ms a step.
        self.optimizer = make_optimizer(self.training.optimizer, self.trained)
        self.accuracy: float | None = None
        self.finished = self._resume()
        compile_parts(self.trained, execution.compile_mode)
        self.stepper = Stepper(
            accelerator.prepare(self.trained),  # DistributedDataParallel with several ranks
            self.optimizer,
            self.training,
            ranks=ranks,
            accumulation=execution.accumulation,
            seed=planned.seeds.augmentation,
        )
        options = {"device": self.device, "ranks": ranks, "workers": execution.decoders}
        self.measurement = Measurement(planned, self.inputs, **options)
        self.batches = self.inputs.batches(**options)
        self.tracking = Tracking(accelerator, planned, workspace.root)
        self.background = CheckpointThread()

    def close(self) -> None:
        """Stop the thread, the decoding processes and the trackers, also after an error."""
        self.background.close()
        self.batches.close()
        self.measurement.close()
        self.tracking.close()

    def finish(self) -> None:
        """Train the remaining epochs, and write the files that make the folder a member."""
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
            raise TrainingError(f"{self.planned.id}: {diverged}, before any training step", fix="Fix the recipe.")
        if self.folder is not None:
            self._write_member(self.folder, diverged)

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Take every step of an epoch. Return the mean loss, and the seconds that the epoch took."""
        step = (epoch - 1) * self.training.steps_per_epoch

        def report_progress(done: int, loss: float, speed: float) -> None:
            self.background.check()  # raises the error of a failed write, such as a full disk
            self._report(epoch - 1, speed=speed, step=done, loss=loss, accuracy=self.accuracy)

        watch = Watch(
            self.device,
            first_step=step,
            units_per_step=self.units_per_step,
            ranks=self.ranks,
            on_progress=report_progress,
        )
        self.trained.train()
        try:
            for batch in self.batches.epoch(epoch - 1):
                watch.step(self.stepper(batch, step))
                step += 1
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
            self.optimizer.zero_grad()
            raise out_of_memory_error(
                self.planned,
                self.trained,
                self.inputs,
                device=self.device,
                ranks=self.ranks.count,
                accumulation=self.execution.accumulation,
                members_per_gpu=self.execution.members_per_gpu,
            ) from error
        return watch.end()

    def _finish_epoch(self, epoch: int, *, running_loss: float | None, seconds: float) -> None:
        """Measure the model, and save its weights in the background. Report the epoch after that."""
        step = epoch * self.training.steps_per_epoch
        self.trained.eval()
        metrics = self.measurement.measure(self.model, self.trained)  # by all ranks together
        tensors = saved_tensors(self.model)
        if self.execution.is_half(epoch, last=self.training.epochs):
            tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}  # norms and digests are the file's
        if self.ranks.is_main:
            metrics |= {
                "train_loss_running": running_loss,
                "weight_norm": weight_norm(tensors),
                "distance_from_start": weight_distance(tensors, self.first_weights),
            }
        wrong = self.ranks.broadcast(first_not_finite(metrics))
        if wrong is not None:
            raise Diverged(step, wrong)
        if (folder := self.folder) is None:
            return
        self.accuracy = accuracy = shown_accuracy(metrics)
        speed = self.training.steps_per_epoch * self.units_per_step / seconds if seconds else None
        weights, state = HostCopy(tensors), HostCopy(self._resume_tensors())
        timing = records.TimingRecord(
            epoch=epoch,
            training_seconds=round(seconds, 4),
            finished_at=round(time.time(), 3),
            throughput=None if speed is None else round(speed, 1),
            hardware=hardware(self.device.type),
        )

        def save() -> None:
            record = folder.keep_epoch(
                weights.wait(),
                state.wait(),
                timing=timing,
                epoch=epoch,
                step=step,
                samples_seen=step * self.training.batch_size,
                learning_rate=learning_rate(self.training, max(step - 1, 0)),
                **metrics,
            )
            self.tracking.log(record)
            self._report(epoch, speed=speed, loss=running_loss, accuracy=accuracy)

        self.background.submit(save)

    def _report(self, epoch: int, *, speed: float | None = None, **values: Any) -> None:
        if not self.ranks.is_main:
            return
        share = None
        if speed is not None and self.peak is not None:
            share = speed * self.training.views * self.planned.unit_flops / (self.peak * self.ranks.count)
        steps = self.training.steps_per_epoch
        self.report(Report(epoch=epoch, steps=steps, throughput=speed, peak_share=share, **values))

    def _resume_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a resume needs beside the weights file: the optimizer's and the pretext's.

        If epochs are saved in bfloat16, also the float32 weights.
        """
        own = self.trained.own_tensors() if isinstance(self.trained, Pretext) else {}
        own = {f"{_PRETEXT}{name}": tensor for name, tensor in own.items()}
        if self.execution.dtype == "bf16":
            own |= {f"{_WEIGHTS}{name}": tensor for name, tensor in saved_tensors(self.model).items()}
        return optimizer_tensors(self.optimizer) | own

    def _resume(self) -> int:
        """Resume from rank 0's files. Return the last finished epoch, -1 before any."""
        tensors = None if self.folder is None else self.folder.resume()
        last = self.ranks.broadcast(-1 if self.folder is None else self.folder.last_epoch)
        if last < 0:
            return last
        tensors = self.ranks.broadcast(tensors)
        own, weights = _take(tensors, _PRETEXT), _take(tensors, _WEIGHTS)
        if self.folder is not None:  # other ranks get the weights from this rank's model
            if weights:
                self.model.load_state_dict(self.model.state_dict() | weights)
            else:
                load_weights(self.model, self.folder.weights_file(last))
            self.accuracy = shown_accuracy(msgspec.structs.asdict(self.folder.state.metrics[-1]))
            self._report(last, accuracy=self.accuracy)
        if isinstance(self.trained, Pretext):
            self.trained.load_own_tensors(own)
        restore_optimizer(self.optimizer, tensors)
        return last

    def _write_member(self, folder: MemberFolder, diverged: Diverged | None) -> None:
        parent, dataset = self.parent, self.dataset
        record = records.MemberRecord(
            **planned_fields(self.planned),
            parent=None if parent is None else parent.id,
            parent_epoch=None if parent is None else parent.epochs,
            parent_sha256=None if parent is None else parent.final_weights.sha256,
            status="completed" if diverged is None else "diverged",
            diverged_step=None if diverged is None else diverged.step,
            last_good_epoch=None if diverged is None else folder.last_epoch,
            dataset_revision=dataset.revision,
            dataset_fingerprint=dataset.fingerprint,
            classes=dataset.classes,
            n_train=len(dataset.train),
            n_val=len(dataset.val),
            n_test=len(dataset.test),
            compile=self.execution.compile_mode,
            ranks=self.ranks.count,
            versions=versions(),
            commit=git_commit(),
            tokenizer_sha256=self.tokenizer and self.tokenizer.sha256,
            deviations=self.deviations,
            weights=folder.final_weights(completed=diverged is None),
        )
        folder.write_member(record, self.model, self.inputs)

    def _identity(self, workspace: Workspace) -> dict[str, Any]:
        """Return every input that decides this member's bits, as far as they are promised."""
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
            "dtype": self.execution.dtype,
            "deterministic": self.execution.deterministic,
            "accumulation": self.execution.accumulation,
            "ranks": self.ranks.count,
        }


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors of a prefix and return them without it."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in [*tensors] if name.startswith(prefix)}


class Watch:
    """The running loss and the speed of one epoch, without waiting for the device.

    Sums stay on the device. About every second they are copied to the host behind the queued work, and read after
    they arrive. The end of the epoch reads them once more.

    Args:
        device: Device of the losses.
        first_step: Finished steps before the epoch.
        units_per_step: Images or tokens of a step, over all ranks; a contrastive image counts once.
        ranks: Processes that train together.
        on_progress: Called about every second with (finished steps of the epoch, mean loss, images or tokens a second).
    """

    def __init__(
        self,
        device: torch.device,
        *,
        first_step: int,
        units_per_step: float,
        ranks: Ranks,
        on_progress: Callable[[int, float, float], None],
    ):
        self._first, self._units, self._ranks, self._on_progress = first_step, units_per_step, ranks, on_progress
        # The sum of the losses, and the number of steps after which it was finite. It never becomes finite again.
        self._total = torch.zeros((), dtype=torch.float32, device=device)
        self._finite = torch.zeros((), dtype=torch.float32, device=device)
        self._steps = 0
        self._started = self._reported = time.perf_counter()
        self._copy: tuple[int, HostCopy] | None = None

    def step(self, loss: Float[Tensor, ""]) -> None:
        """Count a step.

        Args:
            loss: Loss of the step, on the device, detached.

        Raises:
            Diverged: An earlier step's loss was NaN or infinite. With several ranks only `end` raises, on all at once.
        """
        self._total += loss
        self._finite += self._total.isfinite()
        self._steps += 1
        if self._copy is None and time.perf_counter() - self._reported > _PROGRESS_SECONDS:
            self._copy = (self._steps, HostCopy({"sums": torch.stack((self._total, self._finite))}))
        if self._copy is not None and self._copy[1].arrived:
            steps, copy = self._copy
            self._copy, self._reported = None, time.perf_counter()
            total, finite = copy.wait()["sums"].tolist()
            if finite < steps and self._ranks.count == 1:
                raise Diverged(self._first + int(finite), "the loss")
            self._on_progress(steps, total / steps, steps * self._units / (self._reported - self._started))

    def end(self) -> tuple[float, float]:
        """Wait for the epoch's last step.

        Returns:
            The mean loss of the epoch's steps over all ranks, and the seconds that the epoch took.

        Raises:
            Diverged: A step's loss was NaN or infinite.
        """
        sums = self._ranks.gather(torch.stack((self._total, self._finite))[None], self._ranks.count).tolist()
        seconds = time.perf_counter() - self._started
        finite = min(int(finite) for _, finite in sums)
        if finite < self._steps:
            raise Diverged(self._first + finite, "the loss")
        return sum(total for total, _ in sums) / len(sums) / self._steps, seconds
