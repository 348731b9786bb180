"""Part ``checkpoint``: what keeping an epoch's weights and optimizer state adds to the steps of the next epoch."""

import statistics
import time
from collections.abc import Callable, Iterator

from training.bench.rounds import Span, Subject, measure
from training.bench.steps import WORDS, Setting, describe_member
from training.bench.table import Row
from training.bench.trainee import Trainee, random_batch
from training.member.background import Background, HostCopy
from training.member.checkpoint import optimizer_tensors
from training.member.folder import MemberFolder
from training.recipes.retention import Retention
from training.workspace import Work, Workspace

_FIGURES = {
    "train_loss_running": None,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "val_loss": None,
    "val_accuracy": None,
    "val_knn_accuracy": None,
    "test_loss": 1.0,
    "test_accuracy": 0.5,
    "test_knn_accuracy": None,
    "weight_norm": 1.0,
    "distance_from_start": 1.0,
}
_EPOCH = 195  # steps of a child of the paper


def measure_checkpoint(setting: Setting) -> Iterator[Row]:
    """Steps with and without an epoch to be kept beside them, in turn.

    Yields:
        One row: the seconds that a checkpoint adds, and their share of an epoch of 195 steps.
    """
    scale, name = setting.scale, "fine-tuning"
    planned, mode = scale.members[name], scale.mode(name)
    trainee = Trainee(planned, device=setting.device, mode=mode)
    batch = random_batch(planned, device=setting.device)
    workspace = Workspace(setting.folder / "checkpoints", scale.recipe)
    label = describe_member(name, planned)
    steps = max(2 * scale.steps, 8)  # long enough that the writing ends within them
    with workspace.hold(planned.id) as work, _Keeper(trainee, work) as keeper:

        def alone(steps: int) -> Span:
            return _timed(lambda: trainee.repeat(batch, steps))

        def keeping(steps: int) -> Span:
            span = _timed(lambda: (keeper.keep(), trainee.repeat(batch, steps)))
            keeper.background.wait()
            return span

        timings = measure(
            [Subject(name="alone", take=alone), Subject(name="keeping", take=keeping)],
            steps=steps,
            rounds=scale.rounds,
            say=lambda text: setting.say(f"{label}; {text}"),
        )
    plain, beside = timings["alone"], timings["keeping"]
    stall = statistics.median(more - less for more, less in zip(beside.rounds, plain.rounds, strict=True)) * steps
    yield Row(
        part="checkpoint",
        member=label,
        what=f"{WORDS[mode]}, a checkpoint beside",
        step_ms=1000 * beside.step_seconds,
        rounds_ms=tuple(1000 * one for one in beside.rounds),
        seconds=stall,
        share=stall / (plain.step_seconds * _EPOCH),
        note=f"added to the steps of an epoch; share of {_EPOCH} steps",
    )


class _Keeper:
    """Keeps epochs of a trainee in a folder, as the trainer does."""

    def __init__(self, trainee: Trainee, work: Work):
        self._trainee, self._epoch = trainee, 0
        self._folder = MemberFolder(work, trainee.planned, keep=Retention("last"), identity={"bench": True})
        self._folder.begin()
        self.background = Background()

    def __enter__(self) -> "_Keeper":
        return self

    def __exit__(self, *error: object) -> None:
        self.background.close()

    def keep(self) -> None:
        """Begin to keep an epoch."""
        weights = HostCopy(self._trainee.model.state_dict())
        state = HostCopy(optimizer_tensors(self._trainee.optimizer))
        epoch, self._epoch = self._epoch, self._epoch + 1

        def write() -> None:
            self._folder.keep_epoch(
                weights.wait(),
                state.wait(),
                timing={},
                epoch=epoch,
                step=0,
                samples_seen=0,
                learning_rate=0.0,
                **_FIGURES,
            )

        self.background.submit(write)


def _timed(work: Callable[[], object]) -> Span:
    began = time.perf_counter()
    work()
    return Span(seconds=time.perf_counter() - began)
