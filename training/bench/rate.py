"""The speed at which one member trains on this device, in a few seconds: what ``run --dry-run`` reckons hours from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from training.bench.trainee import Trainee, random_batch
from training.member.execution import Execution, prepare_process
from training.recipes.plan import PlannedMember

_ENOUGH = 0.5  # seconds of a step on a CPU: more images would only take longer
_SECONDS = 2.0  # of the steps that are timed
_FEWEST = 4  # images that InfoNCE takes, whatever its positives are


def measure_rate(planned: PlannedMember, execution: Execution | None = None) -> float:
    """Images a second of a member's training steps on one fixed batch, as `training.recipes.cost.estimate` takes it.

    On a GPU it is the recipe's batch, or the largest half, quarter, ... that fits, compiled as the members would be,
    which takes the time that compiling takes. On a CPU it is as many images as fill half a second.

    Args:
        planned: The member.
        execution: How members are carried out.

    Returns:
        Images a second of this process' device, each view of an image counted.

    Raises:
        TrainingError: The batch cannot be cut into as many parts as the execution says.
    """
    execution = execution or Execution()
    prepare_process(execution)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mode = execution.compile_mode
    fewest = min(planned.training.batch_size, _FEWEST * execution.accumulation)
    rows = planned.training.batch_size
    if device.type == "cpu":
        eager = _trainee(planned, device, "none", execution)

        def seconds_of(rows: int) -> float:
            batch = random_batch(_with_rows(planned, rows), device=device)
            eager.repeat(batch, 1)
            return eager.repeat(batch, 1).seconds

        rows = rows_that_fill(seconds_of, fewest=fewest, most=rows)
    trainee = _trainee(planned, device, mode, execution)
    while True:
        try:
            return rows * planned.training.views / _step_seconds(trainee, _with_rows(planned, rows))
        except torch.OutOfMemoryError:
            if rows == fewest:
                raise
        rows = max(rows // 2, fewest)
        torch.cuda.empty_cache()


def _trainee(planned: PlannedMember, device: torch.device, mode: Any, execution: Execution) -> Trainee:
    return Trainee(planned, device=device, mode=mode, accumulation=execution.accumulation)


def _with_rows(planned: PlannedMember, rows: int) -> PlannedMember:
    return replace(planned, training=replace(planned.training, batch_size=rows))


def rows_that_fill(seconds_of: Callable[[int], float], *, fewest: int, most: int) -> int:
    """How many images a step is to have: of ``fewest``, twice as many, ... the first that take half a second.

    Args:
        seconds_of: What a step of so many images takes.
        fewest: Tried first.
        most: Never exceeded.
    """
    rows = fewest
    while rows < most and seconds_of(rows) < _ENOUGH:
        rows = min(2 * rows, most)
    return rows


def _step_seconds(trainee: Trainee, planned: PlannedMember) -> float:
    batch = random_batch(planned, device=trainee.device)
    trainee.repeat(batch, 1)  # compiled by then
    seconds = trainee.repeat(batch, 1).seconds
    steps = max(1, min(50, int(_SECONDS / seconds)))
    return trainee.repeat(batch, steps).seconds / steps
