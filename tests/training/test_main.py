"""Test the command line: exit status, and one line for an error of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import ROOT
from training.__main__ import app


def test_help_names_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("plan", "run", "member"):
        assert f" {command} " in result.stdout


def test_plan_prints_every_member_and_trains_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plan", "digits"], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("141 members (13 parents, 128 children), 1,417 checkpoints, ")
    expected = [f"pt-{parent}" for parent in range(13)]
    expected += [
        f"pt-{parent}/ft-{child}" for parent in range(13) for child in range(16 if parent in (0, 1, 10) else 8)
    ]
    assert sorted(line.split()[0] for line in lines if line.startswith("pt-")) == sorted(expected)
    assert list(tmp_path.iterdir()) == []


def test_error_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    out = tmp_path / ("a folder whose name is long enough to need a second line of a narrow terminal" * 2)
    done = subprocess.run(
        [sys.executable, "-m", "training", "member", "digits", "pt-3/ft-1", "--out", str(out)],
        cwd=ROOT, env=os.environ | {"COLUMNS": "80"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: pt-3/ft-1 starts from pt-3")
    assert str(out) in line


def test_what_cannot_be_trained_is_refused_without_torch(tiny_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text("from tests.tiny import tiny as recipe\n")
    code = """
import sys
from typer.testing import CliRunner
from training.__main__ import app
for line in sys.stdin.read().splitlines():
    if line.startswith("hide "):
        sys.modules[line.removeprefix("hide ")] = None
        continue
    result = CliRunner().invoke(app, line.split())
    print(type(result.exception).__name__, result.exit_code, "torch" in sys.modules, result.exception)
"""
    (tmp_path / "empty").mkdir()
    lines = f"""run digits --out new --track wandb
run paper --out new --only pt-0
run evening --out new --data cifar10=empty
run digits --out new --publish org/zoo
run digits --out new --publish org/zoo --publish-epochs some
run digits --out new --engine ray --address 127.0.0.1:1
run digits --out recipe.py
member paper pt-0 --out new
hide ray
run digits --out new --engine ray
member digits pt-3/ft-1 --out lonely
member {tmp_path}/recipe.py pt-0/ft-0 --out {tiny_copy}
hide sklearn
run digits --out new
"""
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        command, input=lines, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    results = done.stdout.splitlines()
    assert [result.split()[:3] for result in results] == [
        ["TrainingError", "1", "False"],
        ["DatasetError", "1", "False"],
        ["DatasetError", "1", "False"],
        ["HubError", "1", "False"],
        ["SelectionError", "1", "False"],
        ["TrainingError", "1", "False"],
        ["TrainingError", "1", "False"],
        ["DatasetError", "1", "False"],
        ["MissingPackageError", "1", "False"],
        ["TrainingError", "1", "False"],
        ["NoneType", "0", "False"],
        ["DatasetError", "1", "False"],
    ], done.stdout
    assert f"{tmp_path}/empty has no images of" in results[2]
    assert "needs a token" in results[3]
    assert "scikit-learn" in results[-1]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "digits"], "--out"),
        (["run", "digits", "--out", "zoo", "--workers", "0"], "--workers"),
        (["train"], "train"),
    ],
)
def test_wrong_command_is_exit_status_2(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
