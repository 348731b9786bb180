"""Each fault once while pushing: everything but the commit itself is tried again by the real client."""

import hashlib

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from tests.hub import After, Answer, Before, Drop, Hub, Lose, Repo, Token, too_many_requests

REGULAR, LFS = "config.json", "model.safetensors"
DATA = bytes(index % 251 for index in range(100_000))


@pytest.fixture
def repo(hub: Hub) -> Repo:
    made = hub.create_repo("alice/zoo")
    made.commit({REGULAR: DATA, LFS: DATA})
    return made


def upload(api: HfApi, path: str = "new.safetensors") -> str:
    return api.upload_file(repo_id="alice/zoo", path_in_repo=path, path_or_fileobj=DATA).oid


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize("path", ["/preupload/", "/objects/batch", "/models/alice/zoo/[0-9a-f]{64}", "/objects/verify"])
def test_all_but_the_commit_is_tried_again(hub: Hub, api: HfApi, naps: list[float], path: str) -> None:
    repo = hub.repo("alice/zoo")
    del repo.objects[repo.file(LFS).key]
    for before, fault in enumerate((Answer(status=503), too_many_requests(retry_after=9), Drop())):
        hub.fault(fault, path=path, times=1, skip=before)
    upload(api)
    assert repo.read("new.safetensors") == DATA
    assert len(hub.requests) == 5 + 3
    assert naps == [1, 10, 4]


def test_the_commit_is_not_tried_again(hub: Hub, repo: Repo, api: HfApi, naps: list[float]) -> None:
    for fault, kind in ((Answer(status=503), HfHubHTTPError), (Drop(), httpx2.RemoteProtocolError)):
        with hub.fault(fault, path="/commit/"), pytest.raises(kind):
            upload(api)
    assert len(repo.commits()) == 2
    assert naps == []
    upload(api)
    assert repo.read("new.safetensors") == DATA
    assert len(hub.requests.of(host="files")) == 0  # the repo has these bytes already


@pytest.mark.parametrize("path", ["new.safetensors", "new.json"])
def test_a_commit_whose_answer_is_lost_is_made_once(hub: Hub, repo: Repo, api: HfApi, path: str) -> None:
    hub.fault(Lose(), path="/commit/", times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        upload(api, path)
    assert (len(repo.commits()), repo.read(path)) == (3, DATA)
    assert upload(api, path) == repo.head  # asked again, it says that nothing is to be done
    assert len(repo.commits()) == 3


def test_a_tag_whose_answer_is_lost(hub: Hub, repo: Repo, api: HfApi, naps: list[float]) -> None:
    hub.fault(Lose(), path="/tag/", times=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create_tag(repo.id, tag="v1")
    with pytest.raises(HfHubHTTPError) as conflict:
        api.create_tag(repo.id, tag="v1")
    assert conflict.value.response.status_code == 409
    assert (repo.tags, naps) == ({"v1": repo.head}, [])


def test_somebody_else_commits_in_between(hub: Hub, repo: Repo, api: HfApi) -> None:
    hub.fault(Before(lambda: repo.commit({"theirs": b""})), path="/commit/", times=1)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit(
            repo.id, [CommitOperationAdd("ours", b"ours")], commit_message="ours", parent_commit=repo.head
        )
    assert set(repo.files()) == {".gitattributes", REGULAR, LFS, "theirs"}


def test_a_token_that_expires_before_the_commit(hub: Hub, repo: Repo, api: HfApi, alice: Token) -> None:
    hub.fault(Before(alice.expire), path="/commit/")
    with pytest.raises(RepositoryNotFoundError, match="is expired"):
        upload(api)
    renewed = HfApi(endpoint=hub.url, token=hub.add_token("alice", role="write").value)
    upload(renewed)
    assert repo.read("new.safetensors") == DATA


def test_an_upload_with_a_wrong_byte_is_refused(hub: Hub, repo: Repo) -> None:
    sha256 = hashlib.sha256(b"right").hexdigest()
    url = hub.sign(f"/models/{repo.id}/{sha256}", method="PUT")
    assert get_session().put(url, content=b"wrong").status_code == 400
    assert get_session().put(url, content=b"right").status_code == 200
    assert repo.objects[sha256] == b"right"


def test_after_runs_once_it_is_done_and_before_it_is_said(hub: Hub, repo: Repo, api: HfApi) -> None:
    seen: list[bytes] = []
    hub.fault(After(lambda: seen.append(repo.read("new.json"))), path="/commit/")
    upload(api, "new.json")
    assert seen == [DATA]


def test_a_hook_may_itself_be_a_client(hub: Hub, repo: Repo, api: HfApi) -> None:
    hub.fault(Before(lambda: upload(api, "theirs.json")), path="/commit/", times=1)
    upload(api, "ours.json")
    assert {"ours.json", "theirs.json"} <= set(repo.files())
