"""The command line in real processes: exit status, and one line for an error of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def training(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", *arguments]
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_help_names_the_commands() -> None:
    done = training("--help")
    assert done.returncode == 0
    for command in ("plan", "run", "member"):
        assert f" {command} " in done.stdout


def test_plan_prints_every_member_and_trains_none() -> None:
    before = sorted(path.name for path in ROOT.iterdir())
    done = training("plan", "digits")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("141 members (13 parents, 128 children), 1,417 checkpoints, ")
    expected = [f"pt-{parent}" for parent in range(13)]
    expected += [
        f"pt-{parent}/ft-{child}" for parent in range(13) for child in range(16 if parent in (0, 1, 10) else 8)
    ]
    assert sorted(line.split()[0] for line in lines[1:-1]) == sorted(expected)
    assert sorted(path.name for path in ROOT.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "digit"], 'error: No recipe is called "digit". Nearest: digits, digits_full.\n'),
        (
            ["member", "digits", "pt-3/ft-1", "--out", "{out}"],
            "error: pt-3/ft-1 starts from pt-3, which is not finished in {out}. Train pt-3 first.\n",
        ),
    ],
)
def test_an_error_is_one_line_and_exit_status_1(arguments: list[str], expected: str, tmp_path: Path) -> None:
    out = tmp_path / ("a folder whose name is long enough to need a second line of a narrow terminal" * 2)
    done = training(*(argument.format(out=out) for argument in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == expected.format(out=out)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "digits"], "--out"),
        (["run", "digits", "--out", "zoo", "--workers", "0"], "--workers"),
        (["train"], "train"),
    ],
)
def test_a_wrong_command_is_exit_status_2(arguments: list[str], expected: str) -> None:
    done = training(*arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
