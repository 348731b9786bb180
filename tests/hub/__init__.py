"""A loopback server that speaks the Hugging Face Hub's protocol, for the real clients.

    with Hub() as hub:
        token = hub.add_token("alice", role="write")
        HfApi(endpoint=hub.url, token=token.value).create_repo("alice/zoo")
        with hub.fault(Cut(after=1000), host="files", times=1) as fault:
            hf_hub_download("alice/zoo", "model.safetensors", endpoint=hub.url)
        assert fault.hits == 1

`server` has `Hub`. `app` with `reading` and `writing` is the hub's host, and `files` the host of large files. `store`
has repos as git has them, `access` tokens, `faults` the faults, and `record` the log of requests.
"""

try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'tests.hub needs {error.name}: pip install -e ".[dev]"', name=error.name) from None

from tests.hub.access import Token
from tests.hub.faults import (
    After,
    Answer,
    Before,
    Cut,
    Drop,
    Endless,
    Flip,
    Headers,
    Lose,
    Slow,
    Truncate,
    too_many_requests,
)
from tests.hub.server import Hub
from tests.hub.store import Repo

__all__ = [
    "After",
    "Answer",
    "Before",
    "Cut",
    "Drop",
    "Endless",
    "Flip",
    "Headers",
    "Hub",
    "Lose",
    "Repo",
    "Slow",
    "Token",
    "Truncate",
    "too_many_requests",
]
