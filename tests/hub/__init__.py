"""A loopback server that speaks the Hugging Face Hub's protocol, well enough for the real clients.

    with Hub() as hub:
        token = hub.add_token("alice", role="write")
        HfApi(endpoint=hub.url, token=token.value).create_repo("alice/zoo")
        with hub.fault(Cut(after=1000), host="files", times=1) as fault, hub.recorded() as requests:
            hf_hub_download("alice/zoo", "model.safetensors", endpoint=hub.url)
        assert fault.hits == 1
        assert len(requests) == 3  # HEAD at the hub, twice GET at the file host

`store` has repos as git does, `accounts` users and tokens; `app` (with `reading` and `writing`) is the hub's host,
`files` the one that large files are redirected to; `faults` says what can go wrong, `record` what was asked; `Hub`
itself is in `server`.
"""

from tests.hub.accounts import Token
from tests.hub.call import Settings
from tests.hub.faults import (
    After,
    Answer,
    Before,
    Cut,
    Drop,
    Fault,
    Flip,
    Lose,
    Slow,
    Truncate,
    too_many_requests,
)
from tests.hub.record import Request, RequestLog
from tests.hub.server import Hub, bind_loopback
from tests.hub.store import Commit, File, Repo

__all__ = [
    "After",
    "Answer",
    "Before",
    "Commit",
    "Cut",
    "Drop",
    "Fault",
    "File",
    "Flip",
    "Hub",
    "Lose",
    "Repo",
    "Request",
    "RequestLog",
    "Settings",
    "Slow",
    "Token",
    "Truncate",
    "bind_loopback",
    "too_many_requests",
]
