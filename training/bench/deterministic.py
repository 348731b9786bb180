"""Part ``deterministic``: what equal bits cost on a GPU; in a process of its own, whose settings it changes."""

from collections.abc import Iterator

import torch

from training.bench.apart import in_fresh_process
from training.bench.rounds import Span, Subject, Timing, measure
from training.bench.scale import Mode, Scale
from training.bench.steps import WORDS, Setting, describe_member
from training.bench.table import Row
from training.bench.trainee import Trainee, random_batch
from training.member.execution import Execution, prepare_process

_MEMBER = "fine-tuning"


def measure_deterministic(setting: Setting) -> Iterator[Row]:
    """Steps of one member with and without `Execution.deterministic`, in turn.

    Yields:
        A row for each mode of compilation; on a CPU one that says that there is nothing to measure.
    """
    planned = setting.scale.members[_MEMBER]
    label = describe_member(_MEMBER, planned)
    if setting.device.type != "cuda":
        yield Row(part="deterministic", member=label, what="deterministic", note="not measured: CPUs always are")
        return
    setting.say(f"{label}; with and without deterministic kernels, in a process of their own")
    timings = in_fresh_process(time_deterministic, setting.scale)
    images = planned.training.batch_size * planned.training.views
    for word in (name for name in timings if f"{name}, deterministic" in timings):
        plain, equal = timings[word], timings[f"{word}, deterministic"]
        yield Row(
            part="deterministic",
            member=label,
            what=f"{word}, deterministic",
            images_per_second=images / equal.step_seconds,
            step_ms=1000 * equal.step_seconds,
            rounds_ms=tuple(1000 * one for one in equal.rounds),
            ratio=equal.speed_to(plain),
            ratio_to=word,
        )


def time_deterministic(scale: Scale) -> dict[str, Timing]:
    """Timings of ``eager``, ``eager, deterministic`` and, where it is compiled, the same of ``compiled``."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    planned = scale.members[_MEMBER]
    batch = random_batch(planned, device=device)
    modes: list[Mode] = list(dict.fromkeys(("none", scale.mode(_MEMBER))))
    subjects = []
    for execution in (
        Execution(),
        Execution(deterministic=True),
    ):  # in this order: Inductor's setting stays once it is on
        for mode in modes:
            trainee = Trainee(planned, device=device, mode=mode)

            def take(steps: int, trainee: Trainee = trainee, execution: Execution = execution) -> Span:
                prepare_process(execution)
                return trainee.repeat(batch, steps)

            name = WORDS[mode] + (", deterministic" if execution.deterministic else "")
            subjects.append(Subject(name=name, take=take))
    return measure(subjects, steps=scale.steps, rounds=scale.rounds)
