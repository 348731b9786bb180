"""How members are carried out: checked when it is said, and never part of what they are."""

import subprocess
import sys

import pytest
import torch

from training.member.execution import Execution, prepare_process


def test_on_a_cpu_nothing_is_compiled_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Execution(compile="default").compile_mode == "default"
    assert Execution(compile="none").compile_mode == "none"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Execution().compile_mode == "none"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Execution().compile_mode == "default"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("Execution(compile='fast')", 'compile is "fast"; expected none or default'),
        ("Execution(accumulation=0)", "accumulation is 0; expected a number above 0"),
        ("Execution(loader_workers=-1)", "loader_workers is -1; expected a number from 0 on"),
        ("Execution(track=('mlflow',))", 'track is "mlflow"; expected tensorboard or trackio or wandb'),
    ],
)
def test_what_cannot_be_is_refused(code: str, message: str) -> None:
    # In a process of its own: here, annotations are checked before the values are.
    program = f"from training.member.execution import Execution\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"ValueError: {message}" in done.stderr


def test_decoders_share_the_cores_between_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Execution(loader_workers=3).decoders == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    assert Execution().decoders == 16
    assert [Execution().decoders_among(workers) for workers in (1, 4, 8, 100)] == [16, 16, 8, 1]
    assert Execution(loader_workers=3).decoders_among(8) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert Execution().decoders == 8
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert Execution().decoders == 1


def test_a_process_on_a_cpu_has_one_thread() -> None:
    prepare_process(Execution())
    assert torch.get_num_threads() == 1


def test_the_driver_of_a_run_imports_no_torch() -> None:
    program = "import sys, training.population.run, training.recipes\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
