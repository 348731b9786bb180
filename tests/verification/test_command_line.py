"""``vitzoo verify``, as a shell sees it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.server import Hub
from tests.published import REPO, plant
from tests.verification.damage import CHILD, MLP, edit_json, flip, publish
from vitzoo.cli import main

Verify = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    def run(*arguments: object) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["vitzoo", "verify", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
        captured = capsys.readouterr()
        return int(exited.value.code or 0), captured.out.splitlines(), captured.err

    return run


def test_in_a_shell(tiny_zoo: Path) -> None:
    command = [str(Path(sys.executable).parent / "vitzoo"), "verify", str(tiny_zoo), "--epochs", "last"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No problems." in done.stdout.splitlines()


def test_sound(tiny_zoo: Path, verify: Verify) -> None:
    code, lines, errors = verify(tiny_zoo, "--evaluate", 3)
    assert (code, errors) == (0, "")
    assert lines[0] == f"{tiny_zoo}  recipe tiny: read 99 files of 11 members, weights of epochs: all, 0.7 MB"
    assert re.fullmatch(
        r"pt-0 on 217 test images of digits-0-5, epoch 2: accuracy "
        r"measured (\d\d\.\d\d%), recorded \1: they agree exactly",
        lines[1],
    )
    assert lines[4:] == [
        "No problems.",
        "It agrees with itself; who made it is unchecked. It has no digest to compare: it was never published.",
    ]


def test_problems_and_trust(zoo: Path, verify: Verify) -> None:
    digest = publish(zoo)
    code, lines, _ = verify(zoo)
    assert (code, lines[1]) == (0, "No problems.")
    assert lines[2:] == [
        f"It agrees with itself; who made it is unchecked. Its digest is {digest}; compare it with the one that "
        "its authors publish: --digest."
    ]
    code, lines, _ = verify(zoo, "--digest", digest, "--epochs", "last")
    assert (code, lines[1:]) == (0, ["No problems.", f"It is the zoo of digest {digest}."])
    assert "weights of epochs: last" in lines[0]
    flip(zoo)
    code, lines, errors = verify(zoo)
    assert (code, errors, lines[1]) == (1, "", CHILD)
    assert re.fullmatch(
        r"  model.epoch-01.safetensors: has sha256 .* but member.json says .*: it was altered", lines[2]
    )
    assert re.fullmatch(r"  model.epoch-01.safetensors: has sha256 .* but manifest.json says .*", lines[3])
    assert lines[4:6] == ["    Get the file again, or train the member again.", "2 problems, in 1 member"]
    assert lines[6].startswith(f"Who made it is unchecked. Its digest is {digest};")
    code, lines, _ = verify(zoo, "--digest", digest)
    assert (code, lines[-1]) == (1, f"But for this, it is the zoo of digest {digest}.")


def test_what_a_zoo_says_is_escaped(zoo: Path, verify: Verify) -> None:
    publish(zoo)
    evil = "[red]evil[/]\x1b[2J"
    edit_json(zoo / MLP / "member.json", dataset=evil, dataset_spec={"name": evil}, init_group=evil, parent=evil)
    edit_json(zoo / MLP / "config.json", **{evil: evil})
    (zoo / MLP / "[red]\x1b[2J.bin").touch()
    code, lines, _ = verify(zoo, "--evaluate", 11)
    assert code == 1
    assert not any("\x1b" in line for line in lines)
    assert sum("[red]" in line for line in lines) >= 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--digest", "sha256:" + "0" * 64], "no digest can prove its identity"),
        (["--epochs", "none"], '"none" is not a choice of epochs'),
        (["--epochs", "99"], 'epochs "99" choose nothing'),
        (["--revision", "main"], 'revision="main"'),
    ],
)
def test_errors(tiny_zoo: Path, verify: Verify, arguments: list[str], says: str) -> None:
    code, lines, errors = verify(tiny_zoo, *arguments)
    assert (code, lines) == (1, [])
    assert errors.startswith("error: ")
    assert says in errors


def test_a_list_that_cannot_be_had(hub: Hub, zoo: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(zoo)
    plant(hub, zoo)
    code, lines, errors = verify(REPO)
    assert (code, errors, lines[1]) == (0, "", "No problems.")
    assert lines[2].startswith("It agrees with itself")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, lines, errors = verify(REPO)
    assert (code, errors, lines[1]) == (0, "", "No problems.")
    assert lines[2].startswith("Files that the manifest does not name were not looked for: ")
    assert lines[3].startswith("It agrees with itself")
