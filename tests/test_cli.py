"""The command line, as a user's shell runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

VITZOO = str(Path(sys.executable).parent / "vitzoo")


def vitzoo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([VITZOO, *arguments], capture_output=True, text=True, timeout=120)


def test_tree(tiny_zoo: Path) -> None:
    done = vitzoo("tree", str(tiny_zoo))
    assert done.returncode == 0, done.stderr
    assert "recipe tiny, 11 members" in done.stdout
    lines = done.stdout.splitlines()
    assert sum("pt-" in line for line in lines) == 11
    assert any("pt-2" in line and "contrastive on digits-0-5, test k-NN" in line for line in lines)
    assert any("pt-1/ft-1" in line and "mlp    sgd   lr 0.05   replicate 0  test " in line for line in lines)


@pytest.mark.parametrize(
    ("member", "says"), [("pt-0/ft-1", "accuracy measured"), ("pt-2", "k-NN accuracy of the features measured")]
)
def test_show_evaluates(tiny_zoo: Path, member: str, says: str) -> None:
    done = vitzoo("show", f"{tiny_zoo}/{member}@1", "--evaluate")
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert "they agree exactly" in done.stdout
    assert done.stderr == ""


def test_show_of_an_epoch_that_is_not_there(tiny_zoo: Path) -> None:
    for arguments in (("show", f"{tiny_zoo}/pt-0@99"), ("show", f"{tiny_zoo}/pt-0@99", "--evaluate")):
        done = vitzoo(*arguments)
        assert (done.returncode, done.stderr) == (1, "error: pt-0 has no weights of epoch 99; kept are 0 to 2.\n")
    assert vitzoo("show", f"{tiny_zoo}/pt-0/").returncode == 0


def test_show_says_when_they_differ(tiny_copy: Path) -> None:
    file = tiny_copy / "pt-0/ft-0/metrics.jsonl"
    *lines, last = file.read_text().splitlines()
    start, _, rest = last.partition('"test_accuracy": ')
    file.write_text("\n".join([*lines, f'{start}"test_accuracy": 0.125, {rest.partition(", ")[2]}']) + "\n")
    done = vitzoo("show", f"{tiny_copy}/pt-0/ft-0", "--evaluate")
    assert done.returncode == 1
    assert "recorded 12.50%: they differ" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tree", "./nowhere"), "nowhere is no zoo: it holds no zoo.json"),
        (("tree",), '"zoo" leads nowhere'),
        (("show", "./nowhere/pt-0"), "nowhere is no zoo"),
        (("show", "./saved"), '"./saved" is no member id'),
        (("show", "zoo/pt-01"), '"zoo/pt-01" is no member id'),
    ],
)
def test_an_error_is_one_line(arguments: tuple[str, ...], says: str) -> None:
    done = vitzoo(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_a_zoo_says_is_escaped(tiny_copy: Path) -> None:
    record = tiny_copy / "pt-0/member.json"
    record.write_text(record.read_text().replace('"digits-0-5"', '"[bold red]evil[/]\\u001b[2J"'))
    for done in (vitzoo("tree", str(tiny_copy)), vitzoo("show", f"{tiny_copy}/pt-0")):
        assert done.returncode == 0, done.stderr
        assert "[bold red]evil" in done.stdout
        assert "\x1b" not in done.stdout
