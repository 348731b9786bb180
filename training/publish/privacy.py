"""What is never published: names of this machine and its user, local paths, git remotes, credentials.

The records hold none of it by construction; a recipe's texts, or a file that somebody edited, might. A file in which
something is found is named in the error, what was found only in kind: the error may end in a log.
"""

import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from vitzoo.errors import TrainingError

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY", re.IGNORECASE)
_SHORTEST_SECRET = 8
_SHORTEST_HOST = 4  # a shorter name is found in ordinary words
_PATTERNS = {
    "a local path": re.compile(r"(?<![\w.:/])(?:/home/|/Users/|/root/|/tmp/|/mnt/|file:/)\w|\b[A-Za-z]:\\{1,2}\w"),
    "a git remote": re.compile(r"\bgit@[\w.-]+:|\bssh://|\b\w+://[^\s/\"'@]+@"),
    "a Hub token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
}


class Privacy:
    """The words that no published file may hold.

    Args:
        root: The zoo's folder.
        secrets: Credentials in use, beside those in the environment.
    """

    def __init__(self, root: Path, *, secrets: Iterable[str] = ()):
        words = dict.fromkeys((*_environment_secrets(os.environ), *secrets), "a credential")
        for path in {str(Path.home()), str(root.absolute()), os.path.realpath(root)}:
            if len(path) > 2:  # "/" is in everything
                words[path] = "a local path"
        self._words = {form: kind for word, kind in words.items() for form in {word, json.dumps(word)[1:-1]}}
        host = socket.gethostname().partition(".")[0]
        self._patterns = dict(_PATTERNS)
        if len(host) >= _SHORTEST_HOST and host != "localhost":
            name = rf"(?<![A-Za-z0-9]){re.escape(host)}(?![A-Za-z0-9])"
            self._patterns["this machine's name"] = re.compile(name, re.IGNORECASE)

    def check(self, path: str, content: bytes) -> None:
        """Refuse a file that holds one.

        Args:
            path: Its place in the zoo, for the error.
            content: What it holds.

        Raises:
            TrainingError: It holds one; the error says where and of what kind.
        """
        text = content.decode("utf-8", errors="replace")
        kind = next((kind for word, kind in self._words.items() if word in text), None)
        kind = kind or next((kind for kind, pattern in self._patterns.items() if pattern.search(text)), None)
        if kind is not None:
            raise TrainingError(
                f"{path} holds {kind}, which is never published; nothing was sent. Take it out of the recipe and train "
                "again, or out of the file."
            )


def _environment_secrets(environment: Mapping[str, str]) -> list[str]:
    return [
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and not Path(value).is_absolute()
    ]
