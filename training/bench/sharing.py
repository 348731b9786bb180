"""Measure the part ``sharing``: the speed of several members at a time on one GPU, or on the cores of a machine.

Each member is a process with its own model, as in a run, and takes the trainer's own steps. Without data, every step
has one fixed batch. Starts, metrics and checkpoints are not part of the measurement.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count as numbers
from itertools import islice, repeat
from math import ceil, nan

import torch

from training.bench.members import sized, write_cifar
from training.bench.rows import Row, measure
from training.bench.steps import Setting, Trainee, describe_member, random_batch, units_per_row
from training.environment import fix_environment
from training.member.device import make_room
from training.member.execution import Execution
from training.member.start import load_inputs
from training.population.estimates import member_kind
from training.population.local import use_gpu, visible_gpus, worker_context
from training.recipes.cost import estimate
from training.recipes.data import image_data
from training.recipes.digits import digits
from training.recipes.evening import evening
from training.recipes.plan import PlannedMember, plan_member
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId

COUNTS = (1, 2, 4, 8)
_WARM_UP = 8  # steps that tell how many a round needs
_SECONDS = 3.0  # of a round
_EQUAL = 0.02  # a number of members is taken for as fast as another that is faster by less
_IMAGES = 5_120  # training images of the member that is measured on a GPU


def measure_sharing(setting: Setting) -> list[Row]:
    """Measure a child of the evening zoo on a GPU, or of the digits zoo on a CPU, on its own pipeline."""
    if setting.device.type == "cuda":
        planned = plan_member(sized(evening(), child_images=_IMAGES), MemberId(0, 0))
        images = _IMAGES + image_data(planned.training.dataset).images.held_out
        execution = Execution(data={"cifar100": write_cifar(setting.folder / "sharing", train=images)})
    else:
        planned, execution = plan_member(digits(), MemberId(0, 0)), Execution()
    name = "evening" if setting.device.type == "cuda" else "digits"
    rows = measure_counts(
        planned, execution, with_data=True, rounds=setting.scale.rounds, seconds=_SECONDS, say=setting.say
    )
    return [replace(row, member=describe_member(f"child of {name}", planned)) for row in rows]


def find_fastest(
    planned: PlannedMember,
    execution: Execution,
    *,
    counts: Sequence[int] = COUNTS,
    seconds: float = _SECONDS,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[int, float]:
    """Return the fastest number of members at a time on a GPU, and its images or tokens a second.

    The smallest number within 2% of the fastest is taken, since it needs the least memory.

    Args:
        planned: Member to train.
        execution: Choices of this machine.
        counts: Numbers to try, ascending.
        seconds: Approximate seconds of a round; there are two rounds for each number.
        say: Called with a line on the current work.

    Raises:
        TrainingError: Not even the smallest number fits into memory.
    """
    rows = measure_counts(planned, execution, counts=counts, rounds=2, seconds=seconds, say=say)
    speeds = [row.images_per_second for row in rows if row.images_per_second is not None]
    return choose_fastest(dict(zip(counts, speeds, strict=False)))


def choose_fastest(speeds: Mapping[int, float]) -> tuple[int, float]:
    """Return the first number of members whose speed is within 2% of the highest, and its speed."""
    enough = (1 - _EQUAL) * max(speeds.values())
    return next((number, speed) for number, speed in speeds.items() if speed >= enough)


def heaviest(planned: Sequence[PlannedMember]) -> PlannedMember:
    """Return the first member of the kind that needs most of a plan's operations."""
    work = Counter[object]()
    for member in planned:
        work[member_kind(member)] += round(member.flops)
    ((kind, _),) = work.most_common(1)
    return next(member for member in planned if member_kind(member) == kind)


def measure_counts(
    planned: PlannedMember,
    execution: Execution,
    *,
    counts: Sequence[int] = COUNTS,
    with_data: bool = False,
    rounds: int,
    seconds: float,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure numbers of members at a time on the first GPU, or in processes without a GPU, in turn.

    Args:
        planned: Member that each process trains.
        execution: Choices of this machine.
        counts: Numbers of members, ascending.
        with_data: Whether batches come from the member's own data and augmentation.
        rounds: Rounds of every number.
        seconds: Approximate seconds of a round.
        say: Called with a line on the current work.

    Returns:
        A row for each number, with the speed of all its members together. The row of the first number that does not fit
        into memory says so in its note, and is the last.

    Raises:
        TrainingError: Not even the smallest number fits.
    """
    fix_environment()  # the processes inherit it, before they import torch
    gpu = next(iter(visible_gpus()), None)
    pools: list[ProcessPoolExecutor] = []
    prepare = partial(_start, planned, execution, gpu, with_data=with_data)

    def take(number: int, steps: int) -> float:
        """Take a number of steps, spread over the members, and return the seconds of all."""
        each = ceil(steps / number)
        began = time.perf_counter()
        for future in [pool.submit(_take, each) for pool in pools[:number]]:
            future.result()
        return (time.perf_counter() - began) * steps / (each * number)

    with ExitStack() as stack:
        ways, full = [], None
        for number in counts:
            say(f"starting members: {number} at a time")
            row = Row(part="sharing", what=_words(number), ratio_to=_words(counts[0]) if ways else None)
            fresh = [
                stack.enter_context(ProcessPoolExecutor(max_workers=1, mp_context=worker_context([gpu])))
                for _ in range(number - len(pools))
            ]
            pools += fresh
            try:
                for future in [pool.submit(prepare) for pool in fresh]:
                    future.result()
                take(number, number)
            except RuntimeError as error:
                if not _is_memory(error):
                    raise
                if not ways:
                    problem = f"The memory is too small for {planned.id}, {_words(number)}: {error}"
                    raise TrainingError(problem, fix=make_room(number)) from error
                for pool in fresh:
                    pool.shutdown()
                full = replace(row, ratio_to=None, note="does not fit into memory")
                break
            ways.append((row, partial(take, number)))
        smallest = counts[0]
        a_step = take(smallest, _WARM_UP * smallest) / (_WARM_UP * smallest)
        steps = ceil(seconds / a_step / counts[-1]) * counts[-1]  # as many for each member, whatever their number
        rows = measure(ways, steps=steps, rounds=rounds, say=say)
    units = units_per_row(planned) * planned.training.batch_size
    for place, row in enumerate(rows):
        speed = 1000 * units / (row.step_ms or nan)
        hours = estimate([planned], throughput=speed).hours or nan
        rows[place] = replace(row, images_per_second=speed, members_per_hour=1 / hours)
    return rows if full is None else [*rows, full]


def _words(number: int) -> str:
    return f"{number} at a time"


def _is_memory(error: RuntimeError) -> bool:
    """Return whether memory was full: a GPU's, the machine's, or so full that the system killed a process."""
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, BrokenProcessPool) or any(text in str(error).lower() for text in texts)


_steps: Callable[[int], float]  # of a process that `_start` prepared


def _start(planned: PlannedMember, execution: Execution, gpu: str | None, *, with_data: bool) -> None:
    """Prepare this process to train a member."""
    global _steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the driver's end is enough
    threading.Thread(target=_end_with_driver, daemon=True).start()
    use_gpu(gpu)
    device = torch.device("cpu" if gpu is None else "cuda")
    trainee = Trainee(planned, execution, device=device)
    if with_data:
        batches = load_inputs(planned, data=execution.data).batches(device=device, workers=0)
        endless = (batch for epoch in numbers() for batch in batches.epoch(epoch))
    else:
        endless = repeat(random_batch(planned, device=device))
    _steps = lambda steps: trainee.take(islice(endless, steps))  # noqa: E731
    _steps(1)  # compiles


def _take(steps: int) -> float:
    return _steps(steps)


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)
