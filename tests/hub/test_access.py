"""Who sees and who writes: what the real client makes of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from tests.hub import Hub, Token

Download = Callable[..., Path]


@pytest.fixture
def private(hub: Hub) -> None:
    """A private repo of the organisation zoos."""
    hub.create_repo("zoos/private", private=True).commit({"a.json": b"{}", "a.safetensors": b"a"})


@pytest.mark.usefixtures("private")
def test_a_private_repo_is_absent_to_strangers(hub: Hub, alice: Token, download: Download) -> None:
    reader = hub.add_token("bob", orgs=("zoos",))
    stranger = hub.add_token("mallory", role="write")
    for token, status in ((None, 401), (stranger, 404)):
        with pytest.raises(RepositoryNotFoundError) as hidden:
            download("zoos/private", "a.json", token=str(token) if token else False)
        assert hidden.value.response.status_code == status
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.url, token=str(token) if token else False).upload_file(
                repo_id="zoos/private", path_in_repo="a.json", path_or_fileobj=b"[]"
            )
    for token in (alice, reader):
        assert download("zoos/private", "a.json", token=token.value).read_bytes() == b"{}"
        HfApi(endpoint=hub.url, token=token.value).auth_check("zoos/private")


@pytest.mark.usefixtures("private")
def test_the_file_host_never_sees_the_token(hub: Hub, alice: Token, download: Download) -> None:
    assert download("zoos/private", "a.safetensors", token=alice.value).read_bytes() == b"a"
    assert [(request.host, request.token) for request in hub.requests] == [("hub", alice.value), ("files", None)]


@pytest.mark.parametrize("repo_id", ["bob/zoo", "zoos/tiny", "alice/zoo"])
def test_a_read_token_does_not_write(hub: Hub, repo_id: str) -> None:
    repo = hub.create_repo(repo_id)
    api = HfApi(endpoint=hub.url, token=hub.add_token("bob", orgs=("zoos",)).value)
    refused = (
        lambda: api.create_repo(f"{repo_id}-2"),
        lambda: api.upload_file(repo_id=repo_id, path_in_repo="a", path_or_fileobj=b"a"),
        lambda: api.create_tag(repo_id, tag="v1"),
        lambda: api.create_branch(repo_id, branch="next"),
        lambda: api.delete_repo(repo_id),
        lambda: api.update_repo_settings(repo_id, private=True),
        lambda: api.auth_check(repo_id, write=True),
    )
    for attempt in refused:
        with pytest.raises(HfHubHTTPError, match="you must use a write token") as error:
            attempt()
        assert error.value.response.status_code == 403
    assert (len(repo.commits()), repo.tags, repo.private) == (1, {}, False)


def test_a_write_token_writes_to_its_own_namespaces(hub: Hub, api: HfApi) -> None:
    hub.create_repo("bob/zoo")
    with pytest.raises(HfHubHTTPError, match="You don't have the rights"):
        api.upload_file(repo_id="bob/zoo", path_in_repo="a", path_or_fileobj=b"a")
    for repo_id in ("alice/zoo", "zoos/tiny"):
        api.create_repo(repo_id)
        api.auth_check(repo_id, write=True)
    about = api.whoami()
    assert (about["name"], [org["name"] for org in about["orgs"]]) == ("alice", ["zoos"])


def test_an_expired_token_is_refused_even_for_what_is_public(hub: Hub, alice: Token, api: HfApi) -> None:
    hub.create_repo("alice/zoo")
    alice.expire(after=1)
    assert api.model_info("alice/zoo").id == "alice/zoo"
    with pytest.raises(RepositoryNotFoundError, match='User Access Token "alice" is expired') as expired:
        api.model_info("alice/zoo")
    assert expired.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as unknown:
        HfApi(endpoint=hub.url, token="hf_none").model_info("alice/zoo")
    assert not isinstance(unknown.value, RepositoryNotFoundError)
