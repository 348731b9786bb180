"""Test errors of the Hub while publishing: transient ones are retried, others are explained without the token."""

import contextlib
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from tests.hub import Answer, Before, Drop, Hub, Lose, Token, too_many_requests
from tests.published import assert_never_half
from tests.training.publish.zoos import METADATA, TO, assert_holds, assert_sent_once, plan, push
from training.publish import remote
from training.publish.push import check_target, publish
from vitzoo.errors import HubError
from vitzoo.hub_http import HubUnavailableError
from vitzoo.sources.folder import FolderSource

KINDS = (Answer(status=500), Answer(status=503), Drop(), Lose(), too_many_requests(rate_limit_headers=True))


# One upload makes the requests preupload, objects/batch and /models/ in turn, so they do not fail in the same test.
@pytest.mark.parametrize(
    "paths",
    [
        ["/refs", "/tree/", "repos/create", "preupload", "/commit/main", "/tag/"],
        ["objects/batch"],
        ["^/models/"],
    ],
)
def test_transient_errors_are_retried(hub: Hub, token: Token, small: Path, tmp_path: Path, paths: list[str]) -> None:
    publication = plan(small, tag="v1")
    with contextlib.ExitStack() as stack:  # the kinds come one after the other
        faults = [
            stack.enter_context(hub.fault(kind, path=path, skip=number, times=1))
            for path in paths
            for number, kind in enumerate(KINDS)
        ]
        publish(publication)
    assert {fault.hits for fault in faults} == {1}
    assert_holds(hub, publication)
    assert_never_half(hub.repo(TO), tmp_path)
    assert len(hub.repo(TO).commits()) == 3
    assert len(hub.repo(METADATA, "dataset").commits()) == 2
    assert hub.repo(TO).tags.keys() == hub.repo(METADATA, "dataset").tags.keys() == {"v1"}


def test_pauses_are_as_long_as_the_hub_asks(hub: Hub, token: Token, small: Path, waits: list[float]) -> None:
    with (
        hub.fault(too_many_requests(retry_after=17), path="/commit/main", times=1),
        hub.fault(too_many_requests(retry_after=23, rate_limit_headers=True), path="/refs", times=1),
        hub.fault(Answer(status=503), path="repos/create", times=3),
    ):
        push(small)
    assert sorted(waits) == [1.0, 2.0, 4.0, 17.0, 23.0]


@pytest.mark.parametrize("seconds", ["601", "9" * 400])
def test_pause_above_ten_minutes_is_an_error(
    hub: Hub, token: Token, small: Path, waits: list[float], seconds: str
) -> None:
    fault = Answer(status=429, headers={"Retry-After": seconds})
    with hub.fault(fault, path="/commit/main"), pytest.raises(HubUnavailableError) as error:
        push(small)
    assert error.value.status == 429
    assert waits == []


def test_unavailable_hub_is_an_error_after_eight_tries(hub: Hub, token: Token, small: Path, waits: list[float]) -> None:
    with hub.fault(Answer(status=503), path="/commit/main"), pytest.raises(HubUnavailableError) as error:
        push(small)
    assert (error.value.repo, error.value.status) == (TO, 503)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


def test_hanging_request_ends_after_its_timeout(hub: Hub, token: Token, small: Path) -> None:
    end = threading.Event()
    record = FolderSource(small).record
    try:
        remote.limit_waiting(0.05)
        with hub.fault(Before(lambda: end.wait(60)), path="/api/models/"), pytest.raises(HubUnavailableError) as error:
            check_target(record, to=TO, private=False, say=print)
    finally:
        end.set()
        set_client_factory(default_client_factory)
    assert error.value.status is None
    check_target(record, to=TO, private=False, say=print)


@pytest.mark.parametrize("after", [0, 40])
def test_publish_continues_with_a_new_token_after_one_expired(
    hub: Hub, token: Token, small: Path, after: int, capfd: pytest.CaptureFixture[str]
) -> None:
    publication = plan(small)
    token.expire(after=after)
    with pytest.raises(HubError, match="expired") as error:
        publish(publication)
    assert error.value.status == 401
    assert str(token) not in "".join(traceback.format_exception(error.value)) + repr(vars(error.value))
    assert str(token) not in "".join(capfd.readouterr())
    publish(publication, token=str(hub.add_token("org", role="write")))
    assert_holds(hub, publication)
    assert_sent_once(hub)


@pytest.mark.parametrize("exists", [False, True])
def test_publish_refuses_a_read_token(hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    monkeypatch.setenv("HF_TOKEN", str(hub.add_token("org", role="read")))
    if exists:
        hub.create_repo(TO)
        hub.create_repo(METADATA, "dataset")
    with pytest.raises(HubError) as error:
        push(small)
    assert error.value.status == 403
    assert not hub.requests.of(method="PUT")
    assert not exists or len(hub.repo(TO).commits()) == 1


@pytest.mark.parametrize("token", [None, "hf_one\nhf_two", "caf\u00e9-token", "", "\n"])
def test_publish_refuses_a_missing_or_malformed_token(hub: Hub, small: Path, token: str | None) -> None:
    with pytest.raises(HubError, match="token") as error:
        publish(plan(small), token=token)
    assert not (token or "").strip() or str(token) not in str(error.value)
    assert not hub.requests


def test_errors_quote_the_hub_without_the_token(
    hub: Hub, token: Token, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = Answer(status=402, headers={"X-Error-Message": f"pay for {token}, please"})
    with hub.fault(refusal, path="/commit/"), pytest.raises(HubError, match="please") as error:
        push(small)
    text = "".join(traceback.format_exception(error.value)) + repr(vars(error.value)) + "".join(capfd.readouterr())
    assert str(token) not in text
    assert not any(str(token).encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


class TestCheckTarget:
    @pytest.mark.parametrize(
        ("user", "role", "exists"),
        [("org", "read", False), ("org", "read", True), ("else", "write", False), (None, "write", False)],
        ids=["read", "existing", "another", "none"],
    )
    def test_check_target_refuses_a_token_without_write_access(
        self, hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch, user: str | None, role: Any, exists: bool
    ) -> None:
        if user is not None:
            monkeypatch.setenv("HF_TOKEN", str(hub.add_token(user, role=role)))
        if exists:
            hub.create_repo(TO)
            hub.create_repo(METADATA, "dataset")
        with pytest.raises(HubError, match="write access") as error:
            check_target(FolderSource(small).record, to=TO, private=False, say=print)
        assert error.value.status == (None if user is None else 403)

    def test_check_target_creates_repos_once(self, hub: Hub, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", f" {hub.add_token('org', role='write')} \r\n")  # sent without white space
        record = FolderSource(small).record
        check_target(record, to=TO, private=True, say=print)
        assert hub.repo(TO).private
        assert hub.repo(METADATA, "dataset").private
        push(small)
        history = len(hub.repo(TO).commits())
        check_target(record, to=TO, private=False, say=print)
        assert len(hub.repo(TO).commits()) == history
