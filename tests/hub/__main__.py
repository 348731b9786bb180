"""Serve an empty Hub on this machine until Ctrl-C: ``python -m tests.hub``."""

import threading
from contextlib import suppress

from tests.hub import Hub

with suppress(KeyboardInterrupt), Hub() as hub:
    token = hub.add_token("me", role="write", orgs=("org",))
    print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={token} HF_HUB_DISABLE_XET=1", flush=True)
    threading.Event().wait()
