"""Find the folder where vitzoo keeps what it fetched or computed, outside of zoos."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/vitzoo``, or ``~/.cache/vitzoo``. It may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitzoo"
