"""From a zoo folder to the Hub and back, as two people would do it, while everything goes wrong that may.

One publishes, the other starts with an empty cache. What passes is survived by the client's own tries; `datasets` makes
none of its own for some, so its user calls again, as a user does.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from tests.hub.faults import Answer, Cut, Drop, Flip, Kind, Lose, Slow, Truncate, too_many_requests
from tests.hub.server import Hub
from tests.hub.store import Repo
from tests.published import REPO, zoo_files
from training.publish.plan import plan_publication
from training.publish.push import publish
from vitzoo import VitZooModel, Zoo
from vitzoo.errors import AuthenticityError, WeightsError
from vitzoo.hub_http import transport_error
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.verification.verify import verify_zoo

METADATA = f"{REPO}-metadata"
# What befalls whom: every request of the kinds that a fault makes sense for.
FAULTS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "429": (too_many_requests(retry_after=0), {}),
    "500": (Answer(status=500), {}),
    "503": (Answer(status=503), {}),
    "dropped": (Drop(), {}),
    "answer lost": (Lose(), {}),
    "cut": (Cut(after=40), {}),
    "truncated": (Truncate(keep=40), {"method": "GET", "path": "^/(models|datasets)/|/resolve/"}),
    "slow": (Slow(piece=5000, seconds=0.01), {}),
    "wrong bytes": (Flip(at=3000), {"host": "files", "method": "GET"}),
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def assert_never_half(repo: Repo) -> None:
    """At every commit there is no manifest, or one whose files are all there with their hashes."""
    for commit in repo.commits():
        files = repo.files(commit.sha)
        assert ("manifest.json" in files) == ("zoo.json" in files)
        for name, expected in json.loads(files.get("manifest.json", b'{"files": {}}'))["files"].items():
            assert hashlib.sha256(files[name]).hexdigest() == expected["sha256"]


def in_the_end(call: Callable[[], Any]) -> Any:
    """What a call gives, made again while its client gives up."""
    for _ in range(6):
        with contextlib.suppress(OSError, ValueError, transport_error()):
            return call()
    return call()


@pytest.fixture
def often(hub: Hub, request: pytest.FixtureRequest) -> Iterator[Callable[[], Any]]:
    """Lets a fault befall three requests from now on, two of them in a row."""
    kind, where = FAULTS[request.param]
    with contextlib.ExitStack() as faults:

        def befall() -> None:
            faults.enter_context(hub.fault(kind, skip=2, times=2, **where))
            faults.enter_context(hub.fault(kind, skip=9, times=1, **where))

        yield befall


@pytest.mark.parametrize("often", FAULTS, indirect=True)
def test_under_each_fault(hub: Hub, tiny_copy: Path, often: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    token = hub.add_token("someone", role="write", orgs=("org",))
    publication = plan_publication(FolderSource(tiny_copy), to=REPO, metadata_to=METADATA, tag="v1")
    often()
    done = publish(publication, token=token.value)
    assert_never_half(hub.repo(REPO))
    assert set(zoo_files(tiny_copy)) == {f.path for f in publication.files} - {"manifest.json", "README.md"}

    often()
    zoo = in_the_end(lambda: Zoo(REPO, revision="v1", digest=done.digest))
    for member in ("pt-0", "pt-0/ft-1"):
        model = in_the_end(lambda member=member: load_right(f"{REPO}/{member}"))
        here = VitZooModel.from_pretrained(f"{tiny_copy}/{member}")
        assert all((model.state_dict()[name] == tensor).all() for name, tensor in here.state_dict().items())
    assert in_the_end(lambda: [m.factors for m in zoo]) == [m.factors for m in Zoo(tiny_copy)]

    often()
    for table in ("members", "epochs", "splits"):
        rows = in_the_end(lambda table=table: load_dataset(METADATA, table, revision="v1")["train"].to_list())
        assert rows == pq.read_table(tiny_copy / layout.table_file(table)).to_pylist()


def load_right(name: str) -> VitZooModel:
    """A member, asked for again where a byte was wrong."""
    try:
        return VitZooModel.from_pretrained(name, verify=True)
    except WeightsError:
        return VitZooModel.from_pretrained(name, verify=True, force_download=True)


def test_what_was_altered_is_found(hub: Hub, tiny_copy: Path) -> None:
    """On the server and in the cache, by `verify` and by loading."""
    token = hub.add_token("someone", role="write", orgs=("org",))
    done = publish(plan_publication(FolderSource(tiny_copy), to=REPO), token=token.value)
    assert not verify_zoo(Zoo(REPO, digest=done.digest)).problems
    cached = Zoo(REPO)["pt-1"].folder / "model.safetensors"
    sound = cached.read_bytes()
    cached.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    stranger = bytearray(hub.repo(REPO).read("pt-0/ft-2/model.epoch-01.safetensors"))
    stranger[-1] ^= 1
    hub.repo(REPO).tamper("pt-0/ft-2/model.epoch-01.safetensors", bytes(stranger))
    elsewhere = Zoo(REPO, cache_dir="another-cache")
    found = verify_zoo(elsewhere).problems
    assert {(str(problem.member), problem.what.partition(":")[0]) for problem in found} == {
        ("pt-0/ft-2", "model.epoch-01.safetensors")
    }
    assert {str(problem.member) for problem in verify_zoo(Zoo(REPO)).problems} == {"pt-1"}
    for name, cache_dir in (("pt-1", None), ("pt-0/ft-2@1", "another-cache")):
        with pytest.raises(WeightsError, match="was altered"):
            VitZooModel.from_pretrained(f"{REPO}/{name}", verify=True, cache_dir=cache_dir)
    with pytest.raises(AuthenticityError, match="was altered"):
        Zoo(REPO, digest=done.digest)["pt-1"].load()
    cached.write_bytes(sound)
    assert not verify_zoo(Zoo(REPO)).problems
