"""A zoo goes from a folder to the Hub and back under every kind of fault.

One user publishes, the other starts with an empty cache. Clients that do not retry a fault are called again.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from tests.hub.faults import Answer, Cut, Drop, Flip, Kind, Lose, Slow, Truncate, too_many_requests
from tests.hub.server import Hub
from tests.published import REPO, assert_never_half, zoo_files
from training.publish.plan import plan_publication
from training.publish.push import publish
from vitzoo import VitZooModel, Zoo
from vitzoo.errors import AuthenticityError, WeightsError
from vitzoo.hub_http import transport_error
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.sources.folder import FolderSource
from vitzoo.verification.verify import verify_zoo

METADATA = f"{REPO}-metadata"
# A fault, and the filter of the requests that it makes sense for.
FAULTS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "429": (too_many_requests(retry_after=0), {}),
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


def repeat(call: Callable[[], Any]) -> Any:
    """Repeat a call while its client gives up."""
    for _ in range(6):
        with contextlib.suppress(OSError, ValueError, transport_error()):
            return call()
    return call()


@pytest.fixture
def break_three(hub: Hub, request: pytest.FixtureRequest) -> Iterator[Callable[[], Any]]:
    """Return a function that lets a fault hit three of the next requests, two of them in a row."""
    kind, where = FAULTS[request.param]
    with contextlib.ExitStack() as faults:

        def start() -> None:
            faults.enter_context(hub.fault(kind, skip=2, times=2, **where))
            faults.enter_context(hub.fault(kind, skip=9, times=1, **where))

        yield start


@pytest.mark.parametrize("break_three", FAULTS, indirect=True)
def test_a_zoo_is_published_and_read_under_each_fault(
    hub: Hub, tiny_copy: Path, tmp_path: Path, break_three: Callable[[], Any]
) -> None:
    token = hub.add_token("someone", role="write", orgs=("org",))
    publication = plan_publication(FolderSource(tiny_copy), to=REPO, metadata_to=METADATA, tag="v1")
    break_three()
    done = publish(publication, token=token.value)
    assert_never_half(hub.repo(REPO), tmp_path)
    assert set(zoo_files(tiny_copy)) == {f.path for f in publication.files} - {"manifest.json", "README.md"}

    break_three()
    zoo = repeat(lambda: Zoo(REPO, revision="v1", digest=done.digest))
    for member in ("pt-0", "pt-0/ft-1"):
        model = repeat(lambda member=member: load_right(f"{REPO}/{member}"))
        here = VitZooModel.from_pretrained(f"{tiny_copy}/{member}")
        assert all((model.state_dict()[name] == tensor).all() for name, tensor in here.state_dict().items())
    assert repeat(lambda: [m.factors for m in zoo]) == [m.factors for m in Zoo(tiny_copy)]

    break_three()
    for table in ("members", "epochs", "splits"):
        rows = repeat(lambda table=table: load_dataset(METADATA, table, revision="v1")["train"].to_list())
        assert rows == pq.read_table(tiny_copy / layout.table_file(table)).to_pylist()


def load_right(name: str) -> VitZooModel:
    """Load a member, and download it again if a byte was wrong."""
    try:
        return VitZooModel.from_pretrained(name, verify=True)
    except WeightsError:
        return VitZooModel.from_pretrained(name, verify=True, force_download=True)


def test_files_altered_on_the_server_or_in_the_cache_are_found(hub: Hub, tiny_copy: Path) -> None:
    token = hub.add_token("someone", role="write", orgs=("org",))
    done = publish(plan_publication(FolderSource(tiny_copy), to=REPO), token=token.value)
    assert not verify_zoo(Zoo(REPO, digest=done.digest)).problems
    cached = Zoo(REPO)["pt-1"].folder / "model.safetensors"
    sound = cached.read_bytes()
    cached.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    altered = bytearray(hub.repo(REPO).read("pt-0/ft-2/model.epoch-01.safetensors"))
    altered[-1] ^= 1
    hub.repo(REPO).tamper("pt-0/ft-2/model.epoch-01.safetensors", bytes(altered))
    elsewhere = Zoo(REPO, cache_dir="another-cache")
    found = verify_zoo(elsewhere, members=[MemberId(0), MemberId(0, 2)]).problems
    assert {(str(problem.member), problem.what.partition(":")[0]) for problem in found} == {
        ("pt-0/ft-2", "model.epoch-01.safetensors")
    }
    assert {str(problem.member) for problem in verify_zoo(Zoo(REPO), members=[MemberId(1)]).problems} == {"pt-1"}
    for name, cache_dir in (("pt-1", None), ("pt-0/ft-2@1", "another-cache")):
        with pytest.raises(WeightsError, match="was altered"):
            VitZooModel.from_pretrained(f"{REPO}/{name}", verify=True, cache_dir=cache_dir)
    with pytest.raises(AuthenticityError, match="was altered"):
        Zoo(REPO, digest=done.digest)["pt-1"].load()
    cached.write_bytes(sound)
    assert not verify_zoo(Zoo(REPO), members=[MemberId(1)]).problems
