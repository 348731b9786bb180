"""Test the environment that decides a training's bits, and its description."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from training.environment import SAME_BITS, fix_environment, git_commit, hardware


def test_fix_environment_keeps_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SAME_BITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    fix_environment()
    assert {name: os.environ[name] for name in SAME_BITS} == SAME_BITS | {"OMP_NUM_THREADS": "3"}


def test_hardware_does_not_name_the_host() -> None:
    assert hardware("cpu") != ""
    assert socket.gethostname() not in hardware("cpu")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")
def test_git_commit_names_the_commit_and_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_commit() is None  # `tests.conftest` hides the repository
    monkeypatch.delenv("GIT_CEILING_DIRECTORIES")
    copy = tmp_path / "repository"
    (copy / "training").mkdir(parents=True)
    for name in ("__init__.py", "environment.py"):
        shutil.copy(ROOT / "training" / name, copy / "training" / name)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout.strip()

    def commit_of_copy() -> str:
        code = "from training.environment import git_commit; print(git_commit())"
        command = [sys.executable, "-B", "-c", code]
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    git("add", "training")
    git("commit", "--quiet", "--message", "one")
    commit = git("rev-parse", "HEAD")
    assert commit_of_copy() == commit
    (copy / "notes.txt").write_text("beside the code")
    assert commit_of_copy() == commit
    with open(copy / "training" / "__init__.py", "a") as file:
        file.write("# edited\n")
    once = commit_of_copy()
    assert re.fullmatch(rf"{commit}\+dirty\.[0-9a-f]{{8}}", once)
    with open(copy / "training" / "__init__.py", "a") as file:
        file.write("# edited again\n")
    assert commit_of_copy() != once
