"""``vitzoo import authors``: arguments, printed report and exit status."""

import json
from pathlib import Path

import pytest

from tests.interop.imported import MODEL_TYPES, place, problems, short_release
from tests.interop.release import Release
from tests.test_cli import Here
from vitzoo.interop.authors import facts


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    for name, sizes in MODEL_TYPES.items():
        monkeypatch.setitem(facts.MODEL_TYPES, name, sizes)
    return short_release(tmp_path)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capsys)


def test_command_plans_imports_and_checks(release: Release, tmp_path: Path, here: Here) -> None:
    command = ("import", "authors", str(release.root), str(tmp_path / "zoo"))
    planned = here(*command, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    members = [line.split("  ") for line in planned.stdout.splitlines() if line.startswith("pt-")]
    assert [member[0] for member in members] == ["pt-0", "pt-0/ft-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0"]
    assert members[0][1] == place(release.parents[0])
    assert members[0][2].startswith("3 checkpoints, ")
    listed = json.loads(here(*command, "--dry-run", "--json").stdout)
    assert [(member["id"], member["checkpoints"]) for member in listed["planned"]][:2] == [
        ("pt-0", 3),
        ("pt-0/ft-0", 3),
    ]
    ids = [f"{tmp_path}/zoo/{member[0]}" for member in members]
    assert here(*command, "--dry-run", "--quiet").stdout.split() == ids
    assert not (tmp_path / "zoo").exists()

    done = here(*command, "--check", "3", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "5 members (2 parents, 3 children), 12 checkpoints" in done.stdout
    assert done.stdout.count(": logits as before, largest difference ") == 3
    assert "Not taken of any model: optimizer states" in done.stdout
    assert "Warning" not in done.stderr
    report = json.loads((tmp_path / "zoo/.training/import/report.json").read_text())
    assert report["skipped"] == {}
    assert max(report["checked"].values()) < 1e-5
    assert problems(tmp_path / "zoo") == []

    again = here(*command)
    assert again.returncode == 0, again.stderr
    assert here(*command, "--quiet").stdout.split() == ids
    assert json.loads(here(*command, "--json").stdout)["taken"] == report["taken"]
    assert " 0 B read by this command" in again.stdout or "0 bytes read by this command" in again.stdout


def test_skipped_model_is_exit_status_1(release: Release, tmp_path: Path, here: Here) -> None:
    broken = release.children[1]
    broken.config_json.write_text(broken.config_json.read_text().replace('"CIFAR100"', '"CIFAR10"'))
    done = here("import", "authors", str(release.root), str(tmp_path / "zoo"), "--epochs", "last")
    assert done.returncode == 1
    assert f'not taken {place(broken)}: dataset::name is "CIFAR10"' in done.stdout
    assert "4 members (2 parents, 2 children), 4 checkpoints" in done.stdout
    assert [path.name for path in (tmp_path / "zoo").rglob("*.safetensors")] == ["model.safetensors"] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--help",), 0, "--dry-run"),
        (("missing",), 2, "zoo"),
        (("missing", "zoo", "--jobs", "0"), 2, "greater than or equal to 1"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, here: Here, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = here("import", "authors", *arguments)
    assert done.returncode == code
    assert text.lower() in (done.stdout + done.stderr).lower()
    assert list(tmp_path.iterdir()) == []
