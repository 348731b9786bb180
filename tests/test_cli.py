"""The command line, as a user's shell runs it.

Each command has a test in a real process (`vitzoo`); where it is given many arguments, or loads a model, which would
import torch and transformers each time, `Here` runs the same entry point in this one.
"""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vitzoo import Zoo
from vitzoo.cli import main
from vitzoo.errors import EpochNotFoundError
from vitzoo.sources.locate import locate

VITZOO = str(Path(sys.executable).parent / "vitzoo")


def vitzoo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([VITZOO, *arguments], capture_output=True, text=True, timeout=120)


class Here:
    """What `vitzoo` returns, by the function that the command calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self._monkeypatch.setattr(sys, "argv", ["vitzoo", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, *self._capsys.readouterr())


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capsys)


def test_tree(tiny_zoo: Path) -> None:
    done = vitzoo("tree", str(tiny_zoo))
    assert done.returncode == 0, done.stderr
    assert "recipe tiny, 11 members" in done.stdout
    lines = done.stdout.splitlines()
    assert sum("pt-" in line for line in lines) == 11
    assert any("pt-2" in line and "contrastive on digits-0-5, test k-NN" in line for line in lines)
    assert any("pt-1/ft-1" in line and "mlp    sgd   lr 0.05   replicate 0  test " in line for line in lines)


def test_show_evaluates(tiny_zoo: Path, here: Here) -> None:
    cases = [
        (vitzoo, "pt-0/ft-1", "accuracy measured"),
        (here, "pt-0/ft-1", "accuracy measured"),
        (here, "pt-2", "k-NN accuracy of the features measured"),
    ]
    for run, member, says in cases:
        done = run("show", f"{tiny_zoo}/{member}@1", "--evaluate")
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
        assert "they agree exactly" in done.stdout
        assert done.stderr == ""


def test_show_of_an_epoch_that_is_not_there(tiny_zoo: Path) -> None:
    for arguments in (("show", f"{tiny_zoo}/pt-0@99"), ("show", f"{tiny_zoo}/pt-0@99", "--evaluate")):
        done = vitzoo(*arguments)
        message = "pt-0 has no weights of epoch 99; expected a saved epoch: 0 to 2. Load epoch 2 with epoch=2 or @2."
        assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
    assert vitzoo("show", f"{tiny_zoo}/pt-0/").returncode == 0


def diverge(zoo: Path, *, keep: tuple[int, ...] = (0, 1)) -> None:
    """Let the first child of the tiny zoo have diverged in its second epoch."""
    member = zoo / "pt-0/ft-0"
    record = json.loads((member / "member.json").read_text())
    kept = [weights for weights in record["weights"] if weights["epoch"] in keep]
    record |= {"status": "diverged", "diverged_step": 9, "last_good_epoch": 1, "weights": kept}
    (member / "member.json").write_text(json.dumps(record))
    lines = (member / "metrics.jsonl").read_text().splitlines(keepends=True)
    (member / "metrics.jsonl").write_text("".join(lines[:2]))
    for file in member.glob("*.safetensors"):
        if file.name not in {f"model.epoch-{epoch:02}.safetensors" for epoch in keep}:
            file.unlink()


def test_a_diverged_member(tiny_copy: Path) -> None:
    diverge(tiny_copy)
    done = vitzoo("tree", str(tiny_copy))
    marked = [line for line in done.stdout.splitlines() if line.endswith("  diverged")]
    assert len(marked) == 1
    assert "pt-0/ft-0  linear" in marked[0]
    done = vitzoo("show", f"{tiny_copy}/pt-0/ft-0")
    assert done.returncode == 0, done.stderr
    assert re.search(r"diverged_step +9 *$", done.stdout, re.M)
    assert re.search(r"last_good_epoch +1 *$", done.stdout, re.M)
    assert "diverged_step" not in vitzoo("show", f"{tiny_copy}/pt-0").stdout


@pytest.mark.parametrize(
    ("saved", "epoch", "missing", "expected"),
    [
        ((0,), None, "final weights", "0"),
        ((0,), 1, "weights of epoch 1", "0"),
        ((0, 1), None, "final weights", "0 to 1"),
        ((), 2, "weights of epoch 2", "none"),
    ],
)
def test_missing_weights_of_a_diverged_member(
    tiny_copy: Path, saved: tuple[int, ...], epoch: int | None, missing: str, expected: str
) -> None:
    diverge(tiny_copy, keep=saved)
    member = Zoo(tiny_copy)["pt-0/ft-0"]
    with pytest.raises(EpochNotFoundError) as raised:
        member.load(epoch=epoch)
    error = raised.value
    assert error.problem == f"pt-0/ft-0 has no {missing} (it diverged after step 9)"
    assert (error.expected, error.epoch, tuple(error.epochs)) == (f"a saved epoch: {expected}", epoch, saved)


def test_show_says_when_they_differ(tiny_copy: Path, here: Here) -> None:
    file = tiny_copy / "pt-0/ft-0/metrics.jsonl"
    *lines, last = file.read_text().splitlines()
    start, _, rest = last.partition('"test_accuracy": ')
    file.write_text("\n".join([*lines, f'{start}"test_accuracy": 0.125, {rest.partition(", ")[2]}']) + "\n")
    done = here("show", f"{tiny_copy}/pt-0/ft-0", "--evaluate")
    assert done.returncode == 1
    assert "recorded 12.50%: they differ" in done.stdout


class TestSelect:
    """`vitzoo select`."""

    def test_a_table(self, tiny_zoo: Path) -> None:
        done = vitzoo("select", str(tiny_zoo), "--where", "stage=finetuning,head_type=mlp", "--epochs", "0,2")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"4 members, 8 checkpoints, \d+\.\d kB\n", done.stderr)
        head, first, *_, last = done.stdout.splitlines()
        assert head.split() == ["id", "pretraining_objective", "epoch", "test_accuracy"]  # what varies, seeds apart
        assert re.fullmatch(r"pt-0/ft-1@0  supervised  +0  +\d+\.\d\d%", first), done.stdout
        assert re.fullmatch(r"pt-2/ft-1@2  contrastive  +2  +\d+\.\d\d%", last), done.stdout

    @pytest.mark.parametrize("kind", ["ids", "table", "csv", "json"])
    def test_a_reader_that_has_enough(self, tiny_zoo: Path, kind: str) -> None:
        """As `| head -1`: whatever it was, there is no traceback and no error."""
        command = [VITZOO, "select", str(tiny_zoo), "--epochs", "all", "--format", kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            said = process.stderr.read()
            assert (process.wait(timeout=60), said) == (141, b"")

    def test_ids_that_load(self, tiny_copy: Path, here: Here) -> None:
        for name in ("zoo", "./zoo", "zoo/", str(tiny_copy)):
            done = here("select", name, "--where", "id=pt-0/ft-1|pt-1", "--epochs", "every-5", "--format", "ids")
            assert done.returncode == 0, done.stderr
            ids = done.stdout.splitlines()
            assert len(ids) == 4
            for one in ids:
                located = locate(one)
                assert located is not None
                assert located[1].root == tiny_copy
        assert done.stdout.splitlines() == [
            f"{tiny_copy}/{ref}" for ref in ("pt-0/ft-1@0", "pt-0/ft-1", "pt-1@0", "pt-1")
        ]

    def test_for_programs(self, tiny_zoo: Path, here: Here) -> None:
        arguments = ("select", str(tiny_zoo), "--where", "objective=contrastive,min_train_loss=0", "--epochs", "all")
        rows = json.loads(here(*arguments, "--format", "json").stdout)
        assert [row["ref"] for row in rows][:2] == [f"{tiny_zoo}/pt-2@0", f"{tiny_zoo}/pt-2@1"]
        assert len(rows) == 9
        chosen = Zoo(tiny_zoo).select(objective="contrastive", epoch="all")
        for row, figures, size in zip(rows, chosen.epochs_table.to_pylist(), chosen.sizes, strict=True):
            assert (row["bytes"], row["id"], row["test_accuracy"]) == (size, figures["id"], figures["test_accuracy"])
            assert row["pretraining_objective"] == "contrastive"
            assert row["learning_rate"] == Zoo(tiny_zoo)[row["id"]].record.learning_rate
        lines = list(csv.DictReader(here(*arguments, "--format", "csv").stdout.splitlines()))
        assert [{**row, "ref": str(row["ref"])} for row in lines] == [
            {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
        ]

    def test_text_of_a_zoo_is_escaped(self, tiny_copy: Path, here: Here) -> None:
        record = tiny_copy / "pt-0/member.json"
        record.write_text(record.read_text().replace('"digits-0-5"', '"[bold red]evil[/]\\u001b[2J"'))
        for kind in ("table", "csv", "json", "ids"):
            done = here("select", str(tiny_copy), "--format", kind)
            assert done.returncode == 0, done.stderr
            assert "\x1b" not in done.stdout
            assert ("[bold red]evil[/]" in done.stdout) == (kind != "ids")

    def test_what_is_left_out_is_said(self, tiny_copy: Path) -> None:
        record = tiny_copy / "pt-0/member.json"
        record.write_text(record.read_text().replace('"completed"', '"diverged"'))
        done = vitzoo("select", str(tiny_copy), "--format", "ids")
        assert len(done.stdout.splitlines()) == 10
        first, second = done.stderr.splitlines()
        assert first == 'Members left out because of their status: 1 diverged; status="any" takes them too.'
        assert second.startswith("10 members, 10 checkpoints, ")
        taken = vitzoo("select", str(tiny_copy), "--where", "status=any", "--format", "ids")
        assert (len(taken.stdout.splitlines()), len(taken.stderr.splitlines())) == (11, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("select", "./nowhere"), "nowhere is not a zoo"),
        (("tree", "./nowhere"), "nowhere is not a zoo: it has no zoo.json"),
        (("tree",), '"zoo" leads nowhere'),
        (("show", "./nowhere/pt-0"), "nowhere is not a zoo"),
        (("show", "./saved"), '"./saved" is not a member id'),
        (("show", "zoo/pt-01"), '"zoo/pt-01" is not a member id'),
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
