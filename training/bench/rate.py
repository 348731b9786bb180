"""Measure the training speed of one member on this device in a few seconds, for ``run --dry-run``."""

from dataclasses import replace

import torch

from training.bench.steps import Trainee, random_batch
from training.member.execution import Execution, prepare_process
from training.recipes.plan import PlannedMember

_ENOUGH = 0.5  # seconds of a step on a CPU: more images only take longer
_SECONDS = 2.0  # of the timed steps
_FEWEST = 4  # images of the smallest batch of InfoNCE


def measure_rate(planned: PlannedMember, execution: Execution | None = None) -> float:
    """Return images a second of training steps on one fixed batch, for `training.recipes.cost.estimate`.

    On a GPU the batch is the recipe's, or the largest half, quarter, ... that fits, compiled like the members. On a CPU
    it has as many images as fill half a second.

    Args:
        planned: Member to train.
        execution: Choices of this machine.

    Returns:
        Images a second of this process' device, each view of an image counted.

    Raises:
        TrainingError: The batch cannot be cut into the execution's parts.
    """
    execution = execution or Execution()
    prepare_process(execution)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    most = planned.training.batch_size
    fewest = min(most, _FEWEST * execution.accumulation)

    def step_seconds(trainee: Trainee, rows: int, *, steps: int = 1) -> float:
        sized = replace(planned, training=replace(planned.training, batch_size=rows))
        batch = random_batch(sized, device=device)
        trainee.repeat(batch, 1)  # compiles, and warms up
        seconds = trainee.repeat(batch, 1)
        steps = min(steps, max(1, int(_SECONDS / seconds)))
        return seconds if steps == 1 else trainee.repeat(batch, steps) / steps

    rows = most
    if device.type == "cpu":
        rows, eager = fewest, Trainee(planned, replace(execution, compile="none"), device=device)
        while rows < most and step_seconds(eager, rows) < _ENOUGH:
            rows = min(2 * rows, most)
    trainee = Trainee(planned, execution, device=device)
    while True:
        try:
            return rows * planned.training.views / step_seconds(trainee, rows, steps=50)
        except torch.OutOfMemoryError:
            if rows == fewest:
                raise
        rows = max(rows // 2, fewest)
        torch.cuda.empty_cache()
