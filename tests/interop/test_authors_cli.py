"""``vitzoo import authors`` on models of the real size: ViT-S/16, both heads, half a gigabyte."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.authors_vit import VIT_S_16
from tests.interop.imported import contents, place, problems
from tests.interop.release import Release, write_release
from tests.interop.release_records import PRIVATE, Child, Parent
from tests.test_cli import Here, vitzoo
from vitzoo.records import load_member_record

FAMILY = Parent(
    mode="sl",
    seed=42,
    epochs=1,
    digits=1,
    numbering="from first epoch",
    children=(
        Child(optimizer="adamw", learning_rate=1e-3, epochs=1, digits=4),
        Child(optimizer="sgd", learning_rate=3e-3, head_width=256, epochs=1),
    ),
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    folder = tmp_path_factory.mktemp("real-size")
    yield write_release(folder / "dataset", families=(FAMILY,), size=VIT_S_16, optimizers=False, keep_states=False)
    shutil.rmtree(folder)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capsys)


@pytest.fixture
def zoo(release: Release) -> Iterator[Path]:
    folder = release.root.parent / "zoo"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_dry_run_then_import_then_nothing_more(release: Release, zoo: Path, here: Here) -> None:
    looked = here("import", "authors", str(release.root), str(zoo), "--dry-run")
    assert looked.returncode == 0, looked.stderr
    members = [line.split("  ")[:3] for line in looked.stdout.splitlines() if line.startswith("pt-")]
    assert [member[:2] for member in members] == [
        ["pt-0", place(release.parents[0])],
        ["pt-0/ft-0", place(release.children[0])],
        ["pt-0/ft-1", place(release.children[1])],
    ]
    assert [member[2].partition(",")[0] for member in members] == ["1 checkpoints", "2 checkpoints", "2 checkpoints"]
    assert not zoo.exists()

    done = vitzoo("import", "authors", str(release.root), str(zoo), "--check", "3", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "3 members (1 parents, 2 children), 5 checkpoints" in done.stdout
    for member in ("pt-0", "pt-0/ft-0", "pt-0/ft-1"):
        assert f"{member}: logits as before, largest difference " in done.stdout
    assert "Not taken of any model: optimizer states" in done.stdout
    assert "The report is in .training/import/report.json of the zoo." in done.stdout
    assert "Warning" not in done.stderr
    assert "Loading weights" not in done.stderr
    report = json.loads((zoo / ".training/import/report.json").read_text())
    assert (report["skipped"], report["notes"]) == ({}, {})
    assert len(report["checked"]) == 3
    assert max(report["checked"].values()) < 1e-5

    records = [load_member_record(zoo / member / "member.json") for member in report["taken"]]
    assert [record.num_parameters for record in records] == [22_050_664, 21_704_164, 21_789_924]
    assert [(record.head_type, record.head_width) for record in records] == [
        ("linear", None),
        ("linear", None),
        ("mlp", 256),
    ]
    assert problems(zoo) == []
    texts = {name: text for name, text in contents(zoo).items() if not name.endswith(".safetensors")}
    assert not [name for name, text in texts.items() if any(private.encode() in text for private in PRIVATE)]

    again = here("import", "authors", str(release.root), str(zoo))
    assert again.returncode == 0, again.stderr
    assert "3 members" in again.stdout
    assert " 0 B read by this command" in again.stdout or "0 bytes read by this command" in again.stdout


def test_skipped_model_is_exit_status_1(release: Release, zoo: Path, here: Here) -> None:
    """With the model's place and why; the others are there."""
    broken = release.children[1]
    config = broken.config_json.read_text()
    broken.config_json.write_text(config.replace('"CIFAR100"', '"CIFAR10"'))
    try:
        done = here("import", "authors", str(release.root), str(zoo), "--epochs", "last")
    finally:
        broken.config_json.write_text(config)
    assert done.returncode == 1
    assert f'not taken {place(broken)}: dataset::name is "CIFAR10"; expected "ImageNet1K" or "CIFAR100".' in done.stdout
    assert "2 members (1 parents, 1 children), 2 checkpoints" in done.stdout
    assert problems(zoo) == []
    assert [path.name for path in zoo.rglob("*.safetensors")] == ["model.safetensors"] * 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--help",), 0, "--dry-run"),
        (("missing",), 2, "zoo"),
        (("missing", "zoo", "--jobs", "0"), 2, "greater than or equal to 1"),
        (("missing", "zoo", "--check", "-1"), 2, "greater than or equal to 0"),
    ],
)
def test_arguments(tmp_path: Path, here: Here, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = here("import", "authors", *arguments)
    assert done.returncode == code
    assert said.lower() in (done.stdout + done.stderr).lower()
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
