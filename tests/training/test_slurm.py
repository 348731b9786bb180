"""Test the scripts for Slurm: the commands that they run, requeueing, and their copies in the guide.

Programs that record their arguments replace Slurm's own commands (sbatch, srun, scontrol, squeue). The scripts, and the
command lines that they make, are the real ones.
"""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from training.__main__ import app
from vitzoo.ids import MemberId
from vitzoo.sources.folder import FolderSource
from vitzoo.tables.catalogue import Catalogue

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Slurm runs on Linux only")

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "training/slurm"
GUIDE = (ROOT / "docs/guides/slurm.md").read_text(encoding="utf-8")

# Variables that Slurm 22.05 sets in the script of a task. The last task of an array has the array's number.
TASK = {
    "SLURM_JOB_ID": "80",
    "SLURM_ARRAY_JOB_ID": "77",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "8",
    "SLURM_ARRAY_TASK_COUNT": "8",
}
LAST_TASK = {**TASK, "SLURM_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "8"}
JOB = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NUM_NODES": "4"}
JOBS = ["member.sbatch", "run.sbatch", "ray.sbatch"]

# Each records its name and arguments. srun runs its command as a step; sbatch counts jobs from 1.
RECORD = """#!/bin/bash
{ printf '%q ' "$(basename "$0")" "$@"; echo; } >>"$CALLS"
"""
PROGRAMS = {
    "sbatch": 'grep --count "^sbatch " "$CALLS"',
    "srun": 'while [[ $1 == --* ]]; do shift; done\n"$@"',
    "scontrol": "",
    "squeue": 'echo "$ENDS"',
}


class Cluster:
    """A folder of programs that replace Slurm's, and their calls."""

    def __init__(self, folder: Path):
        self.programs, self.calls = folder / "bin", folder / "calls"
        self.programs.mkdir()
        for name, body in PROGRAMS.items():
            self.add(name, RECORD + body)

    def add(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text + "\n")
        (self.programs / name).chmod(0o755)

    def called(self, program: str) -> list[list[str]]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [arguments for name, *arguments in map(shlex.split, lines) if name == program]

    def run(self, script: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        paths = [self.programs, Path(sys.executable).parent, "/usr/bin", "/bin"]
        environment = {
            "PATH": ":".join(map(str, paths)),
            "CALLS": str(self.calls),
            "ENDS": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3 * 3600)),
            **variables,
        }
        return subprocess.run(
            ["bash", str(SCRIPTS / script), *arguments],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def parsed(command: list[str]) -> tuple[str, dict[str, object]]:
    """Parse a command with the real command line, from ``python -m training`` on."""
    start = next(n for n in range(len(command)) if command[n : n + 3] == ["python", "-m", "training"])
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    with group.make_context("training", command[start + 3 :]) as context:
        name, chosen, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert chosen is not None
        with chosen.make_context(name, rest, parent=context) as inner:
            return name, inner.params


def test_shellcheck_finds_no_problem() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    files = [*sorted(SCRIPTS.iterdir()), ROOT / ".ci/run"]
    done = subprocess.run(
        [shellcheck, "--external-sources", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir()))
def test_the_guide_links_to_every_script(script: str) -> None:
    assert f"[{script}](../../training/slurm/{script})" in GUIDE


@pytest.mark.parametrize("script", JOBS)
def test_jobs_declare_their_options(script: str) -> None:
    text = (SCRIPTS / script).read_text(encoding="utf-8")
    header, *rest = text.split("set -euo pipefail\n")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", header, flags=re.MULTILINE))
    assert rest  # Slurm reads no #SBATCH after the first command
    assert options["signal"] == "TERM@120"  # to the step, where python is
    assert {"requeue", "time", "job-name"} <= set(options)
    assert options["open-mode"] == "append"


MEMBER_RUNS = ["srun", "--cpu-bind=none", "python", "-m", "training", "member"]
RUN_RUNS = ["srun", "--cpu-bind=none", "python", "-m", "training", "run"]


@pytest.mark.parametrize(
    ("script", "arguments", "variables", "command", "read"),
    [
        (
            "member.sbatch", ["pt-", "paper", "--out", "/shared/a zoo"], TASK,
            [*MEMBER_RUNS, "paper", "--out", "/shared/a zoo", "pt-3"],
            {"recipe": "paper", "member_id": "pt-3", "out": Path("/shared/a zoo")},
        ),
        (
            "member.sbatch", ["pt-12/ft-", "digits", "--out", "zoo", "--keep", "last", "--data", "a=/b c/$d"],
            LAST_TASK,
            [*MEMBER_RUNS, "digits", "--out", "zoo", "--keep", "last", "--data", "a=/b c/$d", "pt-12/ft-8"],
            {"member_id": "pt-12/ft-8", "keep": "last", "data": ["a=/b c/$d"]},
        ),
        (
            "run.sbatch", ["paper", "--out", "zoo"], TASK,
            [*RUN_RUNS, "--max-hours", "2.833", "paper", "--out", "zoo", "--shard", "3/8"],
            {"recipe": "paper", "shard": "3/8", "max_hours": 2.833, "engine": "local"},
        ),
        (
            "run.sbatch", ["paper", "--out", "zoo", "--only", "pt-*", "--max-hours", "1"],
            {**TASK, "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "3", "SLURM_ARRAY_TASK_COUNT": "1",
             "SHARDS": "8", "SPARE_MINUTES": "60"},
            [*RUN_RUNS, "--max-hours", "2.000", "paper", "--out", "zoo", "--only", "pt-*", "--max-hours", "1",
             "--shard", "3/8"],
            {"shard": "3/8", "only": ["pt-*"], "max_hours": 1.0},
        ),
        (
            "run.sbatch", ["paper", "--out", "zoo"], {**JOB, "ENDS": "NONE", "SLURM_JOB_END_TIME": ""},
            [*RUN_RUNS, "paper", "--out", "zoo"],
            {"max_hours": None},
        ),
    ],
)  # fmt: skip
def test_dry_run_shows_the_command_of_a_job(
    cluster: Cluster, script: str, arguments: list[str], variables: dict[str, str], command: list[str], read: dict
) -> None:
    done = cluster.run(script, *arguments, DRY_RUN="1", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    shown = shlex.split(done.stdout)
    assert rounded(shown) == rounded(command)
    name, params = parsed(shown)
    assert name == script.removesuffix(".sbatch")
    for parameter, value in read.items():
        assert params[parameter] == (pytest.approx(value, abs=0.01) if parameter == "max_hours" and value else value)
    assert cluster.called("srun") == cluster.called("scontrol") == []


def rounded(command: list[str]) -> list[str]:
    """Round hours to a tenth, because seconds pass between the script and the test."""
    return [f"{float(word):.1f}" if re.fullmatch(r"\d\.\d{3}", word) else word for word in command]


def test_dry_run_shows_the_cluster_and_its_command(cluster: Cluster) -> None:
    done = cluster.run(
        "ray.sbatch", "paper", "--out", "/a zoo", "--gpus-per-member", ".5",
        DRY_RUN="1", SLURM_JOB_END_TIME=in_hours(6), **JOB,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    shown = shlex.split(done.stdout)
    address = shown[shown.index("--address") + 1]
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+:23456", address)  # 20000, and the last digits of the job's number
    assert not address.startswith("127.") or not other_addresses()
    separator = shown.index("--")
    assert shown[:separator] == [
        "srun", "--cpu-bind=none", "ray", "symmetric-run", "--address", address, "--min-nodes", "4"
    ]  # fmt: skip
    assert shown[separator + 1 : separator + 4] == ["bash", "-c", 'touch "$0" && exec "$@"']
    name, params = parsed(shown)
    assert (name, params["engine"], params["address"]) == ("run", "ray", address)
    assert (params["out"], params["gpus_per_member"]) == (Path("/a zoo"), 0.5)
    assert params["max_hours"] == pytest.approx(6 - 1 / 6, abs=0.1)
    symmetric_run_accepts(shown[4:separator])


def in_hours(hours: float) -> str:
    return str(int(time.time() + hours * 3600))


def other_addresses() -> list[str]:
    return subprocess.run(["hostname", "--all-ip-addresses"], capture_output=True, text=True).stdout.split()


def symmetric_run_accepts(arguments: list[str]) -> None:
    """Parse the options before ``--`` with Ray's own command line."""
    scripts = pytest.importorskip("ray.scripts.symmetric_run")
    context = scripts.symmetric_run.make_context("symmetric-run", [*arguments], resilient_parsing=True)
    assert context.params["address"] == arguments[1]
    assert context.params["min_nodes"] == 4
    assert context.params["ray_args_and_entrypoint"] == ()


@pytest.mark.parametrize(
    ("script", "arguments", "variables", "status", "message"),
    [
        ("member.sbatch", [], TASK, 1, "is missing: what the ids begin with"),
        ("member.sbatch", ["pt-", "paper"], JOB, 1, "give sbatch an --array"),
        ("run.sbatch", ["paper"], {}, 1, "start this with sbatch"),
        ("run.sbatch", ["paper"], {**TASK, "SLURM_ARRAY_TASK_MIN": "0"}, 2, "Tasks 0 to 8 are no shards of 8"),
        (
            "run.sbatch", ["paper"], {**TASK, "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "6"},
            2, "Tasks 3 to 8 are no shards of 6: give --array=1-N, or some of these and SHARDS=N.",
        ),
        ("ray.sbatch", ["paper"], {**JOB, "SLURM_JOB_END_TIME": in_hours(0.1)}, 1, "well above 10 minutes"),
        ("submit.sh", ["paper", "--out", "zoo"], {}, 2, "Usage: training/slurm/submit.sh"),
        ("submit.sh", ["--", "peper", "--out", "zoo"], {}, 1, "paper"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_a_start(
    cluster: Cluster, script: str, arguments: list[str], variables: dict[str, str], status: int, message: str
) -> None:
    done = cluster.run(script, *arguments, **variables)
    assert done.returncode == status
    assert message in done.stderr
    assert cluster.called("srun") == cluster.called("sbatch") == cluster.called("scontrol") == []


@pytest.mark.parametrize(
    ("script", "status", "variables", "requeued"),
    [
        *((script, 0, TASK, None) for script in JOBS),
        *((script, 143, TASK, "77_3") for script in JOBS),
        ("run.sbatch", 1, TASK, None),
        ("run.sbatch", 130, TASK, None),
        ("run.sbatch", 75, TASK, "77_3"),
        ("run.sbatch", 143, LAST_TASK, "77_8"),  # not 77, which is the whole array
        ("run.sbatch", 143, {**TASK, "SLURM_RESTART_COUNT": "99"}, "77_3"),
        ("run.sbatch", 143, {**TASK, "SLURM_RESTART_COUNT": "100"}, None),
        ("run.sbatch", 75, {**TASK, "SLURM_RESTART_COUNT": "2", "REQUEUES": "2"}, None),
    ],
)
def test_unfinished_job_is_requeued(
    cluster: Cluster, script: str, status: int, variables: dict[str, str], requeued: str | None
) -> None:
    cluster.add("python", f"#!/bin/bash\nexit {status}")
    cluster.add("ray", '#!/bin/bash\nwhile [[ $1 != -- ]]; do shift; done\nshift\n"$@"')
    arguments = ["pt-"] if script == "member.sbatch" else []
    done = cluster.run(script, *arguments, "paper", "--out", "zoo", SLURM_JOB_NUM_NODES="2", **variables)
    assert done.returncode == status
    assert cluster.called("scontrol") == ([["requeue", requeued]] if requeued else [])
    assert ("REQUEUES is reached" in done.stderr) == (status in (75, 143) and requeued is None)


def test_cluster_that_does_not_start_is_a_failure(cluster: Cluster) -> None:
    """`ray symmetric-run` ends with 0 where `ray start` fails."""
    cluster.add("ray", "#!/bin/bash\nexit 0")
    done = cluster.run("ray.sbatch", "paper", "--out", "zoo", **JOB)
    assert done.returncode == 1
    assert cluster.called("scontrol") == []


def test_submit_sends_a_job_for_each_parents_children(cluster: Cluster, tmp_path: Path) -> None:
    logs = tmp_path / "some logs"
    done = cluster.run(
        "submit.sh", "--time=08:00:00", "--comment=a b", "--", recipe(tmp_path), "--out", "a zoo", LOGS=str(logs)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert logs.is_dir()
    common = ["--time=08:00:00", "--comment=a b"]
    rest = [recipe(tmp_path), "--out", "a zoo"]
    children = [("2", "0", "0-3"), ("3", "1", "0-1"), ("4", "2", "0-1")]
    assert cluster.called("sbatch") == [
        [
            "--parsable", "--job-name=parents", *common, "--array=0-2", f"--output={logs}/%x-%a.out",
            "training/slurm/member.sbatch", "pt-", *rest,
        ],
        *(
            [
                "--parsable", f"--job-name=children-of-pt-{parent}", *common, f"--array={array}",
                f"--output={logs}/%x-%a.out", f"--dependency=afterok:1_{parent}", "--kill-on-invalid-dep=yes",
                "training/slurm/member.sbatch", f"pt-{parent}/ft-", *rest,
            ]
            for _, parent, array in children
        ),
        [
            "--parsable", "--job-name=tables", *common, f"--output={logs}/%x.out", "--dependency=afterany:1:2:3:4",
            "training/slurm/run.sbatch", *rest,
        ],
    ]  # fmt: skip


def test_dry_submission_submits_nothing(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.run("submit.sh", "--", "paper", "--out", "zoo", DRY_RUN="1", LOGS=str(tmp_path / "logs"))
    shown = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [command[0] for command in shown] == ["sbatch"] * 12  # ten parents' children, the parents, the tables
    assert sum("--array=0-23" in command for command in shown) == 10
    assert "--dependency=afterok:parents_9" in shown[10]
    assert not (tmp_path / "logs").exists()
    assert cluster.called("sbatch") == []


@pytest.mark.slow  # a process that imports torch; see above for the commands
def test_task_trains_its_member(cluster: Cluster, tmp_path: Path) -> None:
    zoo = tmp_path / "a zoo"
    task = {**TASK, "SLURM_ARRAY_TASK_ID": "1"}
    done = cluster.run("member.sbatch", "pt-", recipe(tmp_path), "--out", str(zoo), OMP_NUM_THREADS="1", **task)
    assert done.returncode == 0, done.stderr
    assert cluster.called("srun") == [
        ["--cpu-bind=none", "python", "-m", "training", "member", recipe(tmp_path), "--out", str(zoo), "pt-1"]
    ]
    assert Catalogue(FolderSource(zoo)).member_record(MemberId(1)).status == "completed"


def test_commands_of_the_guide_are_valid() -> None:
    """Each names an existing script, followed by options of the real command line."""
    blocks = [
        block for block in re.findall(r"^```bash\n(.*?)^```$", GUIDE, flags=re.M | re.S) if "set -euo" not in block
    ]
    lines = [line for line in "\n".join(blocks).splitlines() if "training/slurm/" in line]
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line)
        script = next(word for word in words if word.startswith("training/slurm/"))
        assert (ROOT / script).is_file()
        rest = words[words.index("--") + 1 :] if script.endswith(".sh") else words[words.index(script) + 1 :]
        if script.endswith("member.sbatch"):
            prefix, *rest = rest
            MemberId.parse(f"{prefix}0")
        command = "member" if script.endswith(("submit.sh", "member.sbatch")) else "run"
        extra = ["pt-0"] if command == "member" else []
        assert parsed(["python", "-m", "training", command, *rest, *extra])[1]["recipe"] == "paper"


def recipe(folder: Path) -> str:
    """Write a file with the tiny recipe, with a space in its name."""
    file = folder / "my recipe.py"
    file.write_text("from tests.tiny import tiny\n\n\ndef recipe():\n    return tiny()\n")
    return str(file)
