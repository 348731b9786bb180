"""The command ``vitzoo verify``."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.server import Hub
from tests.published import REPO, plant
from tests.verification.damage import CHILD, MLP, edit_json, flip, publish
from vitzoo.cli import main
from vitzoo.progress import in_bytes

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


def test_verify_prints_files_evaluations_and_trust(tiny_zoo: Path, verify: Verify) -> None:
    code, lines, errors = verify(tiny_zoo, "--evaluate", 3)
    assert (code, errors) == (0, "")
    files = [path for path in tiny_zoo.glob("pt-*/**/*") if path.is_file()]
    size = in_bytes(sum(path.stat().st_size for path in files))
    assert lines[0] == f"{tiny_zoo}  recipe tiny: read 99 files of 11 members, weights of epochs: all, {size}"
    assert re.fullmatch(
        r"pt-0 on 217 test samples of digits-0-5, epoch 2: accuracy "
        r"measured (\d\d\.\d\d%), recorded \1: they agree exactly",
        lines[1],
    )
    assert lines[4:] == [
        "No problems.",
        "It agrees with itself; who made it is unchecked. It has no digest to compare: it was never published.",
    ]


def test_long_verification_prints_its_progress_where_no_bar_is(
    tiny_zoo: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitzoo.progress._SECONDS_BETWEEN_LINES", 0.0)
    code, _, errors = verify(tiny_zoo, "--evaluate", 2)
    *read, tables, first, second = errors.splitlines()
    assert code == 0
    assert len(read) == 99  # a line a file, because no seconds are between lines
    assert all(re.fullmatch(r"verifying: [\d.]+ k?B of [\d.]+ kB, (\d:\d\d|-) left", line) for line in read)
    assert read[0].endswith(", - left")  # the imports before it say nothing about the files
    assert tables == "comparing the tables with the records"
    assert (first, second) == ("evaluating pt-0, 1 of 2", "evaluating pt-1, 2 of 2")


def test_verify_prints_problems_with_their_fix(zoo: Path, verify: Verify) -> None:
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
    assert re.fullmatch(r"  model.epoch-01.safetensors: was altered: it has sha256 .*, member.json says .*", lines[2])
    assert re.fullmatch(r"  model.epoch-01.safetensors: was altered: .*, manifest.json says .*", lines[3])
    assert lines[4:6] == ["    Get the file again, or train the member again.", "2 problems, in 1 member"]
    assert lines[6].startswith(f"Who made it is unchecked. Its digest is {digest};")
    code, lines, _ = verify(zoo, "--digest", digest)
    assert (code, lines[-1]) == (1, f"But for this, it is the zoo of digest {digest}.")


def test_verify_escapes_text_of_the_zoo(zoo: Path, verify: Verify) -> None:
    publish(zoo)
    evil = "[red]evil[/]\x1b[2J"
    edit_json(zoo / MLP / "member.json", dataset=evil, dataset_spec={"name": evil}, init_group=evil, parent=evil)
    edit_json(zoo / MLP / "config.json", **{evil: evil})
    (zoo / MLP / "[red]\x1b[2J.bin").touch()
    code, lines, _ = verify(zoo, "--evaluate", 11, "--epochs", "last")
    assert code == 1
    assert not any("\x1b" in line for line in lines)
    assert sum("[red]" in line for line in lines) >= 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--digest", "sha256:" + "0" * 64], "no digest can prove its identity"),
        (["--epochs", "none"], '"none" is not a choice of epochs'),
        (["--epochs", "99"], 'epochs "99" select no weights'),
        (["--revision", "main"], 'revision="main"'),
    ],
)
def test_verify_refuses_wrong_options(tiny_zoo: Path, verify: Verify, arguments: list[str], says: str) -> None:
    code, lines, errors = verify(tiny_zoo, *arguments)
    assert (code, lines) == (1, [])
    assert errors.startswith("error: ")
    assert says in errors


def test_verify_prints_that_files_were_not_listed(
    hub: Hub, zoo: Path, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(zoo)
    plant(hub, zoo)
    code, lines, errors = verify(REPO, "--where", "id=pt-1")
    assert (code, errors, lines[1]) == (0, "", "No problems.")
    assert lines[2].startswith("It agrees with itself")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, lines, errors = verify(REPO, "--where", "id=pt-1")
    assert (code, errors, lines[1]) == (0, "", "No problems.")
    assert lines[2].startswith("Files that the manifest does not name were not looked for: ")
    assert lines[3].startswith("It agrees with itself")
