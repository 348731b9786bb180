"""What the Hub's HTTP means to its users: what may pass, how long to wait, and who is to be quiet.

Reading (`vitzoo.hub`) and publishing (`training.publish.remote`) share this and nothing else.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import logging as hf_logging

TRANSIENT = (408, 429, 500, 502, 503, 504)
_RESET = re.compile(r"\br=0;t=(?P<seconds>\d{1,5})\b")


@contextmanager
def quiet() -> Iterator[None]:
    """Without huggingface_hub's own bars, a file each, and without its log, which tells signed URLs."""
    bars, verbosity = not are_progress_bars_disabled(), hf_logging.get_verbosity()
    disable_progress_bars()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


def transport_error() -> type[Exception]:
    """What the HTTP library under huggingface_hub, whichever it is, raises when there is no answer."""
    library = sys.modules[type(get_session()).__module__.partition(".")[0]]
    return library.TransportError


def is_transient(error: Exception) -> bool:
    """Whether the same request may do later: the Hub is busy or failing, or the connection broke."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in TRANSIENT
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError)):
        return False
    return not isinstance(error, OSError) or error.errno is None  # a full disk has a number, a short body has none


def retry_after(error: Exception) -> float | None:
    """Seconds that the Hub asked to wait, by Retry-After or the RateLimit headers; None where it did not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = headers.get("Retry-After", "").strip()
    if asked.isdigit():
        return float(asked)
    reset = _RESET.search(headers.get("RateLimit", "").replace(" ", ""))
    return float(reset["seconds"]) if reset else None
