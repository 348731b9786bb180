"""Downloads of many members: their size, their hashes, and how they resume."""

import hashlib
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tests.hub.faults import Answer, Before, Cut, Flip, Slow, too_many_requests
from tests.hub.server import Hub
from tests.published import REPO, plant, zoo_files
from vitzoo import Zoo
from vitzoo.cli import app
from vitzoo.errors import (
    ConflictingArgumentsError,
    DownloadError,
    EpochNotFoundError,
    HubError,
    MemberNotFoundError,
    RecordError,
    SelectionError,
    UnsafePathError,
    WeightsError,
)
from vitzoo.hub_http import quiet
from vitzoo.ids import MemberId, MemberRef
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.sources.download import Download, find_weights, plan_download, run_download


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))


def weights(hub: Hub) -> set[str]:
    """Return the members and epochs whose weights were requested from the hub."""
    return {match[1] for r in hub.requests.of(host="hub") if (match := re.search(r"/(pt-.*)\.safetensors", r.path))}


def plan_last(*, to: str | Path | None = None) -> Download:
    """Plan the final weights of every member of the planted zoo."""
    zoo = Zoo(REPO)
    return plan_download(zoo.source, find_weights(zoo.source), to=to)


def plan_all(zoo: Zoo, *, to: str | None = None) -> Download:
    """Plan every file."""
    return plan_download(zoo.source, find_weights(zoo.source, epochs=Epochs("all")), to=to)


class TestPlan:
    def test_a_plan_of_nothing_is_refused(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        source = Zoo(REPO).source
        with pytest.raises(SelectionError) as empty:
            find_weights(source, epochs=Epochs("99"))
        assert empty.value.value == "99"
        with pytest.raises(SelectionError, match=REPO):
            plan_download(source, [])
        with pytest.raises(MemberNotFoundError) as no_member:
            plan_download(source, [MemberRef(MemberId(9))])
        assert no_member.value.member == MemberId(9)
        with pytest.raises(EpochNotFoundError) as no_epoch:
            plan_download(source, [MemberRef(MemberId(0), epoch=99)])
        assert (no_epoch.value.epoch, list(no_epoch.value.epochs)) == (99, [0, 1, 2])

    def test_a_plan_has_the_selected_weights_and_all_other_files(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        mlp = zoo.select("head_type=mlp,replicate=0").ids
        assert set(mlp) == {member.id for member in zoo if member.record.head_width and member.record.replicate == 0}
        files = plan_download(zoo.source, find_weights(zoo.source, members=mlp, epochs=Epochs("0,2"))).files
        chosen = {str(path) for path in files if path.suffix == ".safetensors"}
        assert chosen == {f"{member}/model.epoch-0{epoch}.safetensors" for member in mlp for epoch in (0, 2)}
        every = plan_all(zoo)
        content = zoo_files(tiny_zoo)
        assert {str(path) for path in every.files} == content.keys() | {"manifest.json"}
        different = {hashlib.sha256(data).digest(): len(data) for data in content.values()}
        assert every.bytes - every.files[layout.MANIFEST].size == sum(different.values())


class TestHashes:
    @pytest.mark.parametrize("to", [None, "copy"])
    def test_a_finished_download_makes_no_request_again(self, hub: Hub, tiny_zoo: Path, to: str | None) -> None:
        plant(hub, tiny_zoo)
        seen: list[tuple[int, int]] = []
        planned = plan_all(Zoo(REPO), to=to)
        run_download(planned, report=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (planned.bytes, planned.bytes)
        assert not planned.missing
        hub.requests.clear()
        run_download(planned)
        assert not hub.requests
        root = Path(to or planned.source.root)
        assert zoo_files(root) == zoo_files(tiny_zoo)
        hub.requests.clear()
        copy = Zoo(to, digest=planned.source.manifest.digest) if to and planned.source.manifest else Zoo(REPO)
        assert copy["pt-0/ft-1"].evaluate(epoch=1).accuracy == Zoo(tiny_zoo)["pt-0/ft-1"].metrics[1].test_accuracy
        assert len(hub.requests) == (0 if to else 1)

    @pytest.mark.parametrize("to", [None, "copy"])
    def test_a_flipped_byte_is_downloaded_again(self, hub: Hub, tiny_zoo: Path, to: str | None) -> None:
        plant(hub, tiny_zoo)
        with hub.fault(Flip(at=9000), host="files", times=1) as happened:
            run_download(plan_last(to=to))
        assert happened.hits == 1
        for member in Zoo(to or REPO):
            member.load(verify=True)

    @pytest.mark.parametrize("to", [None, "copy"])
    def test_a_file_that_is_wrong_twice_is_deleted(self, hub: Hub, tiny_zoo: Path, to: str | None) -> None:
        repo = plant(hub, tiny_zoo)
        repo.tamper("pt-1/model.safetensors", (tiny_zoo / "pt-0/model.safetensors").read_bytes())
        planned = plan_last(to=to)
        with pytest.raises(WeightsError, match="wrong hash twice") as wrong:
            run_download(planned)
        assert wrong.value.path == planned.target / "pt-1/model.safetensors"
        assert not (planned.target / "pt-1/model.safetensors").exists()
        assert (planned.target / "pt-0/model.safetensors").is_file()

    def test_a_file_missing_in_the_repo_is_named(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo).commit({"pt-1/config.json": None})
        with pytest.raises(RecordError) as missing:
            run_download(plan_last())
        assert missing.value.path == Path("pt-1/config.json")

    def test_a_folder_with_other_files_is_refused(self, hub: Hub, tiny_zoo: Path, tiny_copy: Path) -> None:
        plant(hub, tiny_zoo)
        Path("home/.cache/huggingface").mkdir(parents=True)
        Path("home/README.md").write_text("mine")
        for folder in ("home", "home/README.md"):
            with pytest.raises(ConflictingArgumentsError, match="is not a copy of this zoo"):
                plan_last(to=folder)
        assert Path("home/README.md").read_text() == "mine"
        for folder in ("x" * 300, "/proc/x/y"):
            with pytest.raises(DownloadError):
                run_download(plan_last(to=folder))
        with pytest.raises(ConflictingArgumentsError, match="is not a copy of this zoo"):
            plan_last(to=tiny_copy)
        with pytest.raises(ConflictingArgumentsError, match="is a local folder"):
            plan_download(Zoo(tiny_copy).source, [MemberRef(MemberId(0))])

    def test_each_of_equal_files_is_checked(self, hub: Hub, tiny_zoo: Path) -> None:
        """The last epoch and the final weights are equal files."""
        plant(hub, tiny_zoo)
        source = Zoo(REPO).source
        refs = find_weights(source, members=[MemberId(0)], epochs=Epochs("all"))
        planned = plan_download(source, refs, to="copy")
        run_download(planned)
        for name in ("model.safetensors", "model.epoch-02.safetensors"):
            file = Path("copy/pt-0") / name
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.unlink()
            file.write_bytes(content)
            run_download(planned)
            assert file.read_bytes() == (tiny_zoo / "pt-0" / name).read_bytes()

    def test_a_link_out_of_the_folder_is_refused(self, hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
        plant(hub, tiny_zoo)
        planned = plan_last(to="copy")
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy/manifest.json").write_bytes(planned.source.manifest.to_bytes())
        (tmp_path / "outside").mkdir()
        (tmp_path / "copy/pt-0").symlink_to(tmp_path / "outside")
        with pytest.raises(UnsafePathError):
            run_download(planned)
        assert not list((tmp_path / "outside").iterdir())


class TestResume:
    @pytest.mark.parametrize("to", [None, "copy"])
    def test_after_an_error_nothing_is_downloaded_twice(self, hub: Hub, tiny_zoo: Path, to: str | None) -> None:
        plant(hub, tiny_zoo)
        planned = plan_last(to=to)
        with hub.fault(Answer(status=500), host="files", skip=7), pytest.raises(HubError, match="status 500"):
            run_download(planned)
        assert to is None or not (Path(to) / "zoo.json").exists()
        run_download(planned)
        sent = [request.path for request in hub.requests.of(host="files") if request.status == 200]
        assert len(sent) == len(set(sent))
        assert not planned.missing

    def test_a_download_survives_cut_connections(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        with hub.fault(Cut(after=5000), host="files", times=12) as happened:
            run_download(plan_last())
        assert happened.hits == 12

    def test_a_killed_download_resumes(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        command = [str(Path(sys.executable).parent / "vitzoo"), "download", REPO, "--epochs", "all", "--to", "copy"]
        with hub.fault(Slow(piece=4000, seconds=0.2), host="files", skip=6):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            deadline = time.monotonic() + 60
            while len(hub.requests.of(host="files")) < 8 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.kill()
            process.communicate()
        assert not Path("copy/zoo.json").exists()
        assert any(Path("copy").rglob("*.safetensors"))
        done = CliRunner().invoke(app, command[1:])
        assert done.exit_code == 0, done.stderr
        assert zoo_files(Path("copy")) == zoo_files(tiny_zoo)

    def test_ctrl_c_ends_a_pause_at_once(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        # A child of a shell's background job ignores SIGINT otherwise.
        program = (
            "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from vitzoo.cli import main\nmain()"
        )
        command = [sys.executable, "-c", program, "download", REPO, "--to", "copy"]
        with hub.fault(too_many_requests(retry_after=300), host="files", skip=6) as happened:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 60
            while not happened.hits and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)  # far less than the pause
        assert process.returncode == 130
        assert "Interrupted. Downloaded files are kept" in errors
        assert "Signature" not in errors

    def test_downloads_that_outlive_an_interrupt_log_no_signed_link(
        self, hub: Hub, tiny_zoo: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        plant(hub, tiny_zoo)
        planned, is_loud = plan_last(to="copy"), threading.Event()

        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with (
            hub.fault(Before(lambda: is_loud.wait(60)), host="files"),
            hub.fault(too_many_requests(), host="files", times=3) as happened,
        ):
            with pytest.raises(KeyboardInterrupt), quiet():
                run_download(planned, report=interrupt)
            is_loud.set()
            for thread in threading.enumerate():
                if thread.name.startswith("ThreadPoolExecutor"):
                    thread.join(60)
        assert happened.hits == 3
        assert caplog.text.count("HTTP Error 429 thrown while requesting GET") == 3
        assert caplog.text.count("?(signed)") == 3
        assert "Signature" not in caplog.text


@pytest.mark.parametrize("kind", [too_many_requests(), Cut(after=5000)])
def test_debug_logs_have_no_signed_link(
    hub: Hub, tiny_zoo: Path, caplog: pytest.LogCaptureFixture, kind: Answer | Cut
) -> None:
    plant(hub, tiny_zoo)
    for name in (None, "huggingface_hub"):
        caplog.set_level(logging.DEBUG, name)
    with hub.fault(kind, host="files", times=2) as happened:
        Zoo(REPO)["pt-0"].load()
    assert happened.hits == 2
    assert "?(signed)" in caplog.text
    assert "Signature" not in caplog.text


class TestCommand:
    def test_download_prints_the_size_first(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        arguments = ["download", REPO, "--where", "head_type=mlp", "--epochs", "0,1"]
        hub.requests.clear()
        dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
        assert re.search(r"org/vit-zoo at \w{12}: 4 members, epochs 0,1, \d+ files of [\d.]+ kB, ", dry.stderr), dry
        assert not weights(hub)
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0
        assert "with the hashes of the manifest." in done.stderr
        assert len(weights(hub)) == 8
        assert ", 0 B of them missing here" in CliRunner().invoke(app, [*arguments, "--dry-run"]).stderr

    def test_tree_and_show_read_a_zoo_on_the_hub(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        there = CliRunner().invoke(app, ["tree", REPO]).stdout
        here = CliRunner().invoke(app, ["tree", str(tiny_zoo)]).stdout
        assert there.splitlines()[1:] == here.splitlines()[-len(there.splitlines()) + 1 :]
        assert not weights(hub)
        shown = CliRunner().invoke(app, ["show", f"{REPO}/pt-0/ft-1", "--evaluate"])
        assert "they agree exactly" in shown.stdout

    def test_a_full_disk_is_refused_before_the_download(
        self, hub: Hub, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(hub, tiny_zoo)
        planned = plan_download(Zoo(REPO).source, [MemberRef(MemberId(0))])
        usage = shutil.disk_usage(".")
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(DownloadError, match=r"room for 1\.0 kB") as full:
            run_download(planned)
        assert full.value.path == planned.target
