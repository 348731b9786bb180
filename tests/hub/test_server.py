"""Starting, closing, resetting; and clients in other processes, which may be killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_session

from tests.hub import After, Before, Drop, Hub, bind_loopback

ROOT = Path(__file__).parents[2]


def test_closing_leaves_nothing(hub: Hub) -> None:
    before = threading.active_count()
    sockets = bind_loopback(), bind_loopback()
    with Hub(sockets) as other:
        assert other.url == f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        assert get_session().get(f"{other.url}/api/models/a/b").status_code == 401
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert [bound.fileno() for bound in sockets] == [-1, -1]
    other.close()
    Hub().close()  # one that never started


def test_close_does_not_wait_for_a_client_that_stays_connected(hub: Hub) -> None:
    with socket.create_connection(("127.0.0.1", int(hub.url.rsplit(":", 1)[1]))), Hub() as other:
        idle = socket.create_connection(("127.0.0.1", int(other.url.rsplit(":", 1)[1])))
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 401"
    idle.close()


def test_reset(hub: Hub, api: HfApi) -> None:
    hub.create_repo("alice/zoo")
    hub.configure(page_size=1)
    fault = hub.fault(Before(lambda: None))
    assert api.repo_exists("alice/zoo")
    assert (len(hub.requests), fault.hits) == (1, 1)
    hub.reset()
    assert (list(hub.requests), hub.settings.page_size) == ([], 1000)
    assert not HfApi(endpoint=hub.url, token=False).repo_exists("alice/zoo")
    with pytest.raises(OSError, match="Invalid credentials"):
        api.repo_exists("alice/zoo")
    assert fault.hits == 1


def test_requests_are_recorded(hub: Hub) -> None:
    repo = hub.create_repo("alice/zoo")
    repo.commit({"a.json": b"{}"})
    get_session().get(f"{hub.url}/alice/zoo/resolve/main/a.json?x=1", headers={"Range": "bytes=0-0"})
    (request,) = hub.requests
    assert str(request) == "hub GET /alice/zoo/resolve/main/a.json?x=1 [bytes=0-0] -> 206, 1 B"
    assert hub.requests.of(host="hub", method="GET", path=r"\.json$") == [request]
    assert not hub.requests.of(host="files")
    hub.requests.clear()
    assert not len(hub.requests)


@contextmanager
def uploading(token: str) -> Iterator[subprocess.Popen[bytes]]:
    program = (
        "from huggingface_hub import upload_file\n"
        "upload_file(repo_id='alice/zoo', path_in_repo='a.safetensors', path_or_fileobj=b'a')"
    )
    with subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "HF_TOKEN": token}) as client:
        try:
            yield client
        finally:
            client.kill()


@pytest.mark.parametrize("committed", [False, True])
def test_a_client_killed_before_its_commit_or_before_it_hears_of_it(hub: Hub, committed: bool) -> None:
    repo, token = hub.create_repo("alice/zoo"), hub.add_token("alice", role="write").value
    with uploading(token) as client:
        hub.fault(After(client.kill) if committed else Before(client.kill), path="/commit/", times=1)
        if not committed:
            hub.fault(Drop(), path="/commit/", times=1)
        assert client.wait(timeout=60) == -signal.SIGKILL
    assert len(repo.commits()) == 1 + committed
    with hub.recorded() as requests, uploading(token) as client:
        assert client.wait(timeout=60) == 0
    assert repo.read("a.safetensors") == b"a"
    assert not requests.of(host="files")  # what it had sent was kept
    assert len(repo.commits()) == 2


def test_in_the_foreground(hub: Hub) -> None:
    # Where the tests run in a shell's background, SIGINT is ignored, and what they start inherits that.
    program = (
        "import runpy, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('tests.hub', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split("=")[1].split()[0]
            write, read = (server.stdout.readline().split()[-1] for _ in range(2))
            assert HfApi(endpoint=url, token=write).create_repo("zoo") == f"{url}/alice/zoo"
            assert HfApi(endpoint=url, token=read).model_info("alice/zoo").author == "alice"
            server.send_signal(signal.SIGINT)
            assert "hub POST /api/repos/create -> 200" in server.stdout.read()
            assert server.wait(timeout=10) == 0
        finally:
            server.kill()
