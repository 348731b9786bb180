"""Search texts for private data: names of this machine and its user, local paths, git remotes, credentials.

The trainer writes none of it, but a recipe's texts or an edited file may hold some. The error names the file and the
kind of data, not the data, because errors end in logs. docs/guides/publish.md lists the searched data for users.
"""

import getpass
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.tables.columns import TABLES

# Names of variables with secrets, such as KAGGLE_KEY; not TOKENIZERS_PARALLELISM, KEYBOARD or GIT_AUTHOR_NAME.
_SECRET_NAME = re.compile(
    r"TOKEN(?!I[ZS])|SECRET|PASS(?:W|PHRASE|\b)|(?<![A-Z])PWD\b|CREDENTIAL|KEYS?(?:_|\b)|AUTH(?!OR)|COOKIE|WEBHOOK"
    r"|DSN\b|(?:DATABASE|REDIS|BROKER|CONNECTION)_(?:URL|STRING)",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 8
_SHORTEST_NAME = 4  # shorter names are in ordinary texts, unless they have a digit or a hyphen
_PATTERNS = {
    "a local path": re.compile(
        # An absolute path of two parts, with a letter in one. Not and/or, /1/2, ./a/b, */a/b, {zoo}/a/b, x#/a/b,
        # https://a/b or /pt-0/ft-1.
        r"(?<![\w./~*#})\]\u2026])(?:/|(?<!:)//+)(?!pt-\d)(?=[^\s/]*/?[^\s/]*[^\W\d_])[\w.~@$+%=,-]+/+[\w.~@$-]"
        r"|\bfile:/"
        r"|(?<![\w./~])~(?:[A-Za-z_][\w-]*)?/[\w.-]"
        r"|(?<!\w)[A-Za-z]:(?:\\+|/(?!/))[\w.$~-]"
        r"|(?<![\w\\])\\\\[\w.-]+\\[\w.$-]"
    ),
    "a git remote": re.compile(
        r"(?<![\w.+-])[\w.+-]+@[A-Za-z][\w-]*(?:\.[\w-]+)*:[\w./~]"
        r"|\b(?:ssh|git|git\+\w+)://|\bgit\+\w+:"
        r"|\bhttps?://[^\s\"'<>()]{1,300}\.git(?![\w-])"
        r"|\b\w+://[^\s/\"'@]+@"
    ),
    "a credential": re.compile(
        r"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"
        r"|(?<![\w-])sk-[\w-]{20,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bxox[a-z]-[\w-]{10,}|\bAIza[\w-]{30,}"
        r"|\bnpm_\w{30,}|\bpypi-[\w-]{40,}|\bdckr_pat_[\w-]{20,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY|\"key\"\s*:\s*\"[0-9a-f]{32}\""
        r"|\b[A-Z0-9_]*(?:TOKEN|KEY|SECRET|PASS|PASSWORD|PASSWD|PWD)\s*=\s*[\"']?[\w+/.-]{8,}"
    ),
}
# Names of accounts and machines that identify nobody, or that are words of ordinary texts.
_ORDINARY = {
    *("root", "user", "users", "admin", "administrator", "nobody", "guest", "home", "host", "localhost", "local"),
    *("server", "node", "worker", "docker", "vagrant", "ubuntu", "debian", "centos", "fedora", "runner", "jenkins"),
    *("gitlab", "github", "build", "jovyan", "ec2-user", "azureuser", "kaggle", "colab", "vitzoo", "zoo", "hub"),
    *("model", "models", "vision", "vit", "train", "training", "trainer", "test", "tests", "data", "digits", "team"),
    *("research", "student", "work", "python", "torch", "transformers", "imagenet", "cifar", "mnist"),
    *(
        word
        for table in TABLES.values()
        for name, column in table.items()
        for word in re.findall(r"[a-z0-9]+", f"{name} {column.meaning}".lower())
    ),
}
_ESCAPE = re.compile(r"\\(?:u(?P<code>[0-9a-fA-F]{4})|(?P<character>.))")
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " "}


class Privacy:
    """Words and patterns that a published file may not hold.

    Args:
        root: The zoo's folder.
        public: The target repos, whose names are not private.
    """

    def __init__(self, root: Path, *, public: Iterable[str] = ()):
        self._words = {
            value: "a credential"
            for name, value in os.environ.items()
            if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and not Path(value).is_absolute()
        }
        for path in {str(Path.home()), str(root.absolute()), os.path.realpath(root)}:
            if len(path) > 2:  # "/" is in everything
                self._words[path] = "a local path"
        self._patterns = dict(_PATTERNS)
        repos = " ".join(public)
        for kind, name in (
            ("this machine's name", socket.gethostname().partition(".")[0]),
            ("your user's name", _user_name()),
        ):
            pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE)
            if _identifies(name) and not pattern.search(repos):
                self._patterns[kind] = pattern

    def check(self, path: str, content: bytes) -> None:
        """Refuse a file with private data.

        Args:
            path: Path in the zoo, for the error.
            content: Text, JSON, or Markdown as `vitzoo.tables.cards` escapes it.

        Raises:
            TrainingError: The file holds private data of the named kind.
        """
        text = content.decode("utf-8", errors="replace")
        plain = _ESCAPE.sub(_unescape, text)
        kind = next((kind for word, kind in self._words.items() if word in plain or word in text), None)
        kind = kind or next((kind for kind, pattern in self._patterns.items() if pattern.search(plain)), None)
        if kind is not None:
            raise TrainingError(
                f"{path} holds {kind}, which is never published; nothing was sent",
                fix="Delete it in the recipe and train again, or delete it in the file.",
            )


def _identifies(name: str) -> bool:
    """Tell whether a name identifies a user or machine, and is not a word of ordinary texts."""
    lower = name.lower()
    if lower in _ORDINARY or not re.search("[a-z]", lower) or MemberId.match(lower) is not None:
        return False
    return len(name) >= _SHORTEST_NAME or (len(name) > 1 and re.search(r"[\d-]", name) is not None)


def _user_name() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user need not have one
        return ""
    return name if len(name) >= _SHORTEST_NAME else ""


def _unescape(match: re.Match[str]) -> str:
    if match["code"] is not None:
        return chr(int(match["code"], 16))
    return _CONTROL.get(match["character"], match["character"])
