"""The command line: output, exit status and errors.

`vitzoo` runs a real process. `Here` runs the same entry point in this process, which is much faster.
"""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

import vitzoo as vitzoo_package
from training.__main__ import app as training_app
from vitzoo import Zoo
from vitzoo.cli import app as vitzoo_app
from vitzoo.cli import main
from vitzoo.cli.display import describe_children
from vitzoo.errors import EpochNotFoundError
from vitzoo.ids import MemberId
from vitzoo.sources.locate import locate

VITZOO = str(Path(sys.executable).parent / "vitzoo")


def vitzoo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([VITZOO, *arguments], capture_output=True, text=True, timeout=120)


class Here:
    """Runs the entry point in this process, and returns the same as `vitzoo`."""

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


def test_tree_shows_every_member(tiny_zoo: Path) -> None:
    done = vitzoo("tree", str(tiny_zoo))
    assert done.returncode == 0, done.stderr
    assert "recipe tiny, 11 members" in done.stdout
    lines = done.stdout.splitlines()
    assert sum("pt-" in line for line in lines) == 11
    assert any("pt-2" in line and "contrastive on digits-0-5, test k-NN" in line for line in lines)
    assert any("pt-1/ft-1  mlp     sgd  lr 0.05  replicate 0  test " in line for line in lines)


class TestTree:
    def ids(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        assert done.returncode == 0, done.stderr
        return re.findall(r"pt-\d+(?:/ft-\d+)?", done.stdout)

    def test_conditions_keep_the_parents(self, tiny_zoo: Path, here: Here) -> None:
        done = here("tree", str(tiny_zoo), "--where", "id=pt-0/ft-1|pt-2/ft-1")
        assert self.ids(done) == ["pt-0", "pt-0/ft-1", "pt-2", "pt-2/ft-1"]
        assert "11 members, 4 of them shown" in done.stdout

    def test_depth_of_one_has_parents_alone(self, tiny_zoo: Path, here: Here) -> None:
        assert self.ids(here("tree", str(tiny_zoo), "--depth", "1")) == ["pt-0", "pt-1", "pt-2"]

    def test_siblings_are_sorted_by_a_column(self, tiny_zoo: Path, here: Here) -> None:
        rows = json.loads(here("tree", str(tiny_zoo), "--sort=-final_val_accuracy", "--json").stdout)
        assert len(rows) == len({row["id"] for row in rows}) == 11
        for parent in ("pt-0", "pt-1", "pt-2"):
            accuracies = [row["final_val_accuracy"] for row in rows if row["parent"] == parent]
            assert accuracies == sorted(accuracies, reverse=True)
        parents = [row["final_val_accuracy"] for row in rows if row["parent"] is None]
        assert parents[-1] is None  # the contrastive one: unknown values are last
        assert self.ids(here("tree", str(tiny_zoo), "--sort=-final_val_accuracy")) == [row["id"] for row in rows]
        reverse = self.ids(here("tree", str(tiny_zoo), "--sort=-id", "--depth", "1"))
        assert reverse == ["pt-2", "pt-1", "pt-0"]

    def test_unknown_column_is_named(self, tiny_zoo: Path, here: Here) -> None:
        done = here("tree", str(tiny_zoo), "--sort", "final_val_acuracy")
        assert (done.returncode, done.stdout) == (1, "")
        assert 'no column "final_val_acuracy"' in done.stderr
        assert "final_val_accuracy" in done.stderr

    def test_quiet_prints_ids_that_load(self, tiny_zoo: Path, here: Here) -> None:
        lines = here("tree", str(tiny_zoo), "--quiet").stdout.splitlines()
        assert lines == [f"{tiny_zoo}/{member.id}" for member in Zoo(tiny_zoo)]


def test_show_marks_the_named_epoch(tiny_zoo: Path, here: Here) -> None:
    done = here("show", f"{tiny_zoo}/pt-0/ft-1@1")
    assert [line.split()[1] for line in done.stdout.splitlines() if line.strip().startswith(">")] == ["1"]
    assert not re.search(r"^ *>", here("show", f"{tiny_zoo}/pt-0/ft-1").stdout, re.M)


def test_show_prints_json(tiny_zoo: Path, here: Here) -> None:
    shown = json.loads(here("show", f"{tiny_zoo}/pt-0/ft-1@1", "--json", "--evaluate").stdout)
    member = Zoo(tiny_zoo)["pt-0/ft-1"]
    assert shown["record"]["learning_rate"] == member.record.learning_rate
    assert [record["test_accuracy"] for record in shown["metrics"]] == [each.test_accuracy for each in member.metrics]
    assert shown["evaluated"]["exact"] is True
    assert shown["evaluated"]["measured"] == member.metrics_at(1).test_accuracy


def test_verify_prints_json(tiny_copy: Path, here: Here) -> None:
    assert json.loads(here("verify", str(tiny_copy), "--json").stdout)["problems"] == []
    (tiny_copy / "pt-0/metrics.jsonl").unlink()
    done = here("verify", str(tiny_copy), "--json")
    assert done.returncode == 1
    problems = json.loads(done.stdout)["problems"]
    assert {problem["member"] for problem in problems} >= {"pt-0"}
    assert all(problem["problem"] and problem["fix"] for problem in problems)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_tables_fit_the_terminal(columns: int, tiny_zoo: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (("select", str(tiny_zoo)), ("show", f"{tiny_zoo}/pt-0/ft-1@1"), ("env",)):
        lines = here(*arguments).stdout.splitlines()
        assert max(map(len, lines)) <= columns, arguments
    head, row = here("select", str(tiny_zoo)).stdout.splitlines()[:2]
    assert head.index("test_accuracy") + len("test_accuracy") == row.index("%") + 1  # a number, to the right
    if columns == 200:
        assert "Not shown" not in here("show", f"{tiny_zoo}/pt-0/ft-1").stdout
    if columns == 40:
        assert "Not shown in 40 columns" in here("show", f"{tiny_zoo}/pt-0/ft-1").stdout


def test_colours_are_off_with_no_color(tiny_zoo: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1m" in here("tree", str(tiny_zoo)).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", here("verify", str(tiny_zoo)).stdout)


def test_env_names_versions_and_hides_tokens(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    facts = json.loads(here("env", "--json").stdout)
    assert facts["vitzoo"] == vitzoo_package.__version__
    assert facts["torch"] == version("torch")
    assert facts["wandb"] is None
    assert facts["HF_TOKEN"] == "(hidden)"
    assert "hf_secret" not in here("env").stdout


def commands_of(app: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Yield each command, and its name on the command line."""
    group = get_command(app)
    todo = [("", group)]
    while todo:
        name, command = todo.pop()
        if isinstance(command, TyperGroup):
            todo += [(f"{name} {key}".strip(), value) for key, value in command.commands.items()]
        else:
            yield name, command


@pytest.mark.parametrize(("program", "app"), [("vitzoo", vitzoo_app), ("python -m training", training_app)])
def test_every_help_has_examples_that_parse(program: str, app: typer.Typer) -> None:
    group = get_command(app)
    found = dict(commands_of(app))
    assert len(found) >= 7
    for name, command in found.items():
        lines = [line for line in (command.epilog or "").split("\n\n") if line != "Examples:"]
        assert lines, name
        for line in lines:
            assert line.startswith(f"{program} {name} "[: len(line)])
            arguments = shlex.split(line.partition(" > ")[0].removeprefix(program))
            parsed: Any = group
            while isinstance(parsed, TyperGroup):
                parsed = parsed.commands[arguments.pop(0)]
            parsed.make_context(name, arguments)


def test_short_help_and_module_are_the_command(here: Here) -> None:
    assert "Print the family tree" in here("-h").stdout
    done = subprocess.run([sys.executable, "-m", "vitzoo", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vitzoo {vitzoo_package.__version__}\n"


def test_shells_can_complete_commands() -> None:
    environment = os.environ | {"_VITZOO_COMPLETE": "source_bash"}
    done = subprocess.run([VITZOO], capture_output=True, text=True, env=environment, check=True)
    assert "_VITZOO_COMPLETE=complete_bash" in done.stdout


def test_show_evaluates(tiny_zoo: Path, here: Here) -> None:
    for member, metric in (("pt-0/ft-1", "accuracy measured"), ("pt-2", "k-NN accuracy of the features measured")):
        done = here("show", f"{tiny_zoo}/{member}@1", "--evaluate")
        assert (done.returncode, done.stderr) == (0, "")
        assert metric in done.stdout
        assert "they agree exactly" in done.stdout


def test_show_refuses_an_unknown_epoch(tiny_zoo: Path, here: Here) -> None:
    done = here("show", f"{tiny_zoo}/pt-0@99", "--evaluate")
    message = "pt-0 has no weights of epoch 99; expected a saved epoch: 0 to 2. Load epoch 2 with epoch=2 or @2."
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
    assert here("show", f"{tiny_zoo}/pt-0/").returncode == 0


def diverge(zoo: Path, *, keep: tuple[int, ...] = (0, 1)) -> None:
    """Make the first child of the tiny zoo one that diverged in its second epoch."""
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


def test_tree_and_show_mark_a_diverged_member(tiny_copy: Path, here: Here) -> None:
    diverge(tiny_copy)
    done = here("tree", str(tiny_copy))
    marked = [line for line in done.stdout.splitlines() if line.endswith("  diverged")]
    assert len(marked) == 1
    assert "pt-0/ft-0  linear" in marked[0]
    done = here("show", f"{tiny_copy}/pt-0/ft-0")
    assert done.returncode == 0, done.stderr
    assert re.search(r"diverged_step +9 *$", done.stdout, re.M)
    assert re.search(r"last_good_epoch +1 *$", done.stdout, re.M)
    assert "diverged_step" not in here("show", f"{tiny_copy}/pt-0").stdout


@pytest.mark.parametrize(
    ("saved", "epoch", "missing", "expected"),
    [
        ((0,), None, "final weights", "0"),
        ((0,), 1, "weights of epoch 1", "0"),
        ((0, 1), None, "final weights", "0 to 1"),
        ((), 2, "weights of epoch 2", "none"),
    ],
)
def test_missing_weights_of_a_diverged_member_are_explained(
    tiny_copy: Path, saved: tuple[int, ...], epoch: int | None, missing: str, expected: str
) -> None:
    diverge(tiny_copy, keep=saved)
    member = Zoo(tiny_copy)["pt-0/ft-0"]
    with pytest.raises(EpochNotFoundError) as raised:
        member.load(epoch=epoch)
    error = raised.value
    assert error.problem == f"pt-0/ft-0 has no {missing} (it diverged after step 9)"
    assert (error.expected, error.epoch, tuple(error.epochs)) == (f"a saved epoch: {expected}", epoch, saved)


def test_show_fails_if_the_metrics_differ(tiny_copy: Path, here: Here) -> None:
    file = tiny_copy / "pt-0/ft-0/metrics.jsonl"
    *lines, last = file.read_text().splitlines()
    start, _, rest = last.partition('"test_accuracy": ')
    file.write_text("\n".join([*lines, f'{start}"test_accuracy": 0.125, {rest.partition(", ")[2]}']) + "\n")
    done = here("show", f"{tiny_copy}/pt-0/ft-0", "--evaluate")
    assert done.returncode == 1
    assert "recorded 12.50%: they differ" in done.stdout


class TestSelect:
    def test_table_has_the_factors_that_vary(self, tiny_zoo: Path, here: Here) -> None:
        done = here("select", str(tiny_zoo), "--where", "stage=finetuning,head_type=mlp", "--epochs", "0,2")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"4 members, 8 checkpoints, \d+\.\d kB\n", done.stderr)
        head, first, *_, last = done.stdout.splitlines()
        assert head.split() == ["id", "epoch", "test_accuracy", "pretraining_objective"]
        assert re.fullmatch(r"pt-0/ft-1@0 +0 +\d+\.\d\d%  supervised *", first), done.stdout
        assert re.fullmatch(r"pt-2/ft-1@2 +2 +\d+\.\d\d%  contrastive *", last), done.stdout

    def test_a_closed_pipe_is_not_an_error(self, tiny_zoo: Path) -> None:
        command = [VITZOO, "select", str(tiny_zoo), "--epochs", "all", "--csv"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            errors = process.stderr.read()
            assert (process.wait(timeout=60), errors) == (141, b"")

    def test_ids_can_be_loaded(self, tiny_copy: Path, here: Here) -> None:
        for zoo in ("zoo", "./zoo", "zoo/", str(tiny_copy)):
            done = here("select", zoo, "--where", "id=pt-0/ft-1|pt-1", "--epochs", "every-5", "--quiet")
            assert done.returncode == 0, done.stderr
            ids = done.stdout.splitlines()
            assert len(ids) == 4
            for name in ids:
                located = locate(name)
                assert located is not None
                assert located[1].root == tiny_copy
        assert done.stdout.splitlines() == [
            f"{tiny_copy}/{ref}" for ref in ("pt-0/ft-1@0", "pt-0/ft-1", "pt-1@0", "pt-1")
        ]

    def test_csv_and_json_have_all_factors_and_metrics(self, tiny_zoo: Path, here: Here) -> None:
        arguments = ("select", str(tiny_zoo), "--where", "objective=contrastive,min_train_loss=0", "--epochs", "all")
        rows = json.loads(here(*arguments, "--json").stdout)
        assert [row["ref"] for row in rows][:2] == [f"{tiny_zoo}/pt-2@0", f"{tiny_zoo}/pt-2@1"]
        assert len(rows) == 9
        chosen = Zoo(tiny_zoo).select(objective="contrastive", epoch="all")
        for row, metrics, size in zip(rows, chosen.epochs_table.to_pylist(), chosen.sizes, strict=True):
            assert (row["bytes"], row["id"], row["test_accuracy"]) == (size, metrics["id"], metrics["test_accuracy"])
            assert row["pretraining_objective"] == "contrastive"
            assert row["learning_rate"] == Zoo(tiny_zoo)[row["id"]].record.learning_rate
        lines = list(csv.DictReader(here(*arguments, "--csv").stdout.splitlines()))
        assert [{**row, "ref": str(row["ref"])} for row in lines] == [
            {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
        ]

    def test_text_of_the_zoo_is_escaped(self, tiny_copy: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "500")  # wide enough for every factor
        record = tiny_copy / "pt-0/member.json"
        record.write_text(record.read_text().replace('"digits-0-5"', '"[bold red]evil[/]\\u001b[2J"'))
        for kind in ("--csv", "--json", "--quiet", "--where="):
            done = here("select", str(tiny_copy), kind)
            assert done.returncode == 0, done.stderr
            assert "\x1b" not in done.stdout
            assert ("[bold red]evil[/]" in done.stdout) == (kind != "--quiet")

    def test_members_that_are_left_out_are_counted(
        self, tiny_copy: Path, here: Here, caplog: pytest.LogCaptureFixture
    ) -> None:
        record = tiny_copy / "pt-0/member.json"
        record.write_text(record.read_text().replace('"completed"', '"diverged"'))
        done = here("select", str(tiny_copy), "--quiet")
        assert len(done.stdout.splitlines()) == 10
        assert done.stderr.startswith("10 members, 10 checkpoints, ")
        (warning,) = caplog.messages
        assert "1 diverged" in warning
        taken = here("select", str(tiny_copy), "--where", "status=any", "--quiet")
        assert (len(taken.stdout.splitlines()), len(taken.stderr.splitlines())) == (11, 1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("select", "./nowhere"), "nowhere"),
        (("tree",), '"zoo"'),
        (("show", "./nowhere/pt-0"), "nowhere"),
        (("show", "./saved"), '"./saved"'),
        (("show", "zoo/pt-01"), '"zoo/pt-01"'),
    ],
)
def test_an_error_is_one_line(arguments: tuple[str, ...], word: str, here: Here) -> None:
    done = here(*arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("error: ")
    assert word in done.stderr


def test_tree_and_show_escape_text_of_the_zoo(tiny_copy: Path, here: Here) -> None:
    record = tiny_copy / "pt-0/member.json"
    record.write_text(record.read_text().replace('"digits-0-5"', '"[bold red]evil[/]\\u001b[2J"'))
    for done in (here("tree", str(tiny_copy)), here("show", f"{tiny_copy}/pt-0")):
        assert done.returncode == 0, done.stderr
        assert "[bold red]evil" in done.stdout
        assert "\x1b" not in done.stdout


def test_version_is_printed(here: Here) -> None:
    assert here("--version").stdout == f"vitzoo {vitzoo_package.__version__}\n"


@pytest.mark.parametrize("columns", ["0", "00", "-1", "wide", ""])
def test_a_width_that_shows_nothing_is_ignored(
    columns: str, tiny_zoo: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "recipe tiny, 11 members" in here("tree", str(tiny_zoo)).stdout


def test_output_to_a_pipe_is_not_cut(tiny_copy: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    record = tiny_copy / "pt-0/member.json"
    record.write_text(record.read_text().replace('"digits-0-5"', f'"{"long " * 40}end"'))
    for done in (here("tree", str(tiny_copy)), here("show", f"{tiny_copy}/pt-0")):
        assert f"{'long ' * 40}end" in done.stdout


def test_children_are_in_columns_whatever_their_ids_are(tiny_zoo: Path) -> None:
    first, second = (Zoo(tiny_zoo)[f"pt-0/ft-{child}"] for child in (0, 1))
    second.catalogue._records[MemberId(10, 10)] = second.record
    second.catalogue._metrics[MemberId(10, 10)] = second.metrics
    second.id = MemberId(10, 10)
    lines = describe_children([first, second])
    assert lines[0].index("sgd") == lines[1].index("sgd")


def test_text_that_the_terminal_cannot_show_is_escaped(tiny_zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "zoo-é中").symlink_to(tiny_zoo)
    for name in ("ascii", "cp1252"):
        environment = os.environ | {"PYTHONIOENCODING": name}
        command = [VITZOO, "select", "./zoo-é中", "--quiet"]
        done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=True)
        assert rb"\u4e2d/pt-0" in done.stdout.splitlines()[0]
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 1), (">/dev/full 2>/dev/full", 1), (">&- 2>&-", 0)])
def test_output_that_cannot_be_written_is_not_a_traceback(redirect: str, code: int, tiny_zoo: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = f"{VITZOO} tree {tiny_zoo} {redirect}"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, env=environment)
    expected = "error: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (code, expected if redirect == ">/dev/full" else "")
