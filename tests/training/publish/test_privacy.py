"""Private data is never published, and nothing is sent where some is found."""

import re
from pathlib import Path

import pytest
from msgspec import structs

from tests.hub import Hub, Token
from tests.training.publish.zoos import plan, push
from training.publish.push import publish
from vitzoo import records
from vitzoo.errors import TrainingError
from vitzoo.ids import MemberId
from vitzoo.records.json_files import write_json


def plant(zoo: Path, *texts: str) -> None:
    """Write texts into a member's record."""
    path = zoo / "pt-1/member.json"
    write_json(path, structs.replace(records.load_member_record(path), deviations=texts))


PATHS = ("home", "Users", "root", "tmp", "mnt", "media", "data", "srv", "scratch", "opt", "var")
PRIVATE = [
    "ran on some-host-7",
    "ran on Some-Host-7.example.com",
    "asked mallory about it",
    "/work" + "/mallory/x",
    *(f"read from /{root}/" + "somebody/x" for root in PATHS),
    "cache:/data/x",
    'cache="/scratch/x"',
    "--out=/home/" + "somebody",
    "/lustre/home/" + "somebody/x",
    "file:///etc/passwd",
    "see ~/zoo",
    "see ~somebody/zoo",
    r"read from C:\Users\somebody",
    "read from C:/Users/" + "somebody",
    r"D:\zoo",
    r"\\server\share\zoo",
    "git@example.com:org/private.git",
    "somebody@cluster:zoo",
    "ssh://example.com/x",
    "git+ssh://example.com/x",
    "pip install git+https://example.com/x",
    "https://example.com/org/private.git",
    "http://example.com/org/private.git@main",
    "https://user:password@example.com/x",
    "the secret is hunter2-hunter2",
    *("hf_" + "a" * 34, "ghp_" + "a" * 36, "gho_" + "a" * 36, "github_pat_" + "a" * 40, "sk-" + "proj-" + "a" * 40),
    *("AKIA" + "A" * 16, "xoxb-" + "1" * 20, "AIza" + "a" * 35, "-----BEGIN RSA PRIVATE KEY-----"),
]
PUBLIC = [
    "scikit-learn 1.9.1",
    "Falk et al. 2025, https://arxiv.org/abs/2504.10231 (arXiv 2504.10231)",
    "https://huggingface.co/datasets/org/data/tree/main/data/train.parquet",
    "https://example.org/home/" + "page, https://somebody.github.io/data/x",
    "https://github.com/org/code/blob/main/data/x.py",
    "s3://data/train",
    "train/val/test split, and/or 1/2, ./data/x, ../mnt/x",
    "the digits of the pt-0/ft-1@7: epoch 7",
    "Option A:\nkeep the last epoch; ratio 3:4, a~b, ~3/4 of it",
    "somebody@example.org wrote: thanks; a task-specific-head-of-a-certain-length",
    "lr 1e-3\\2, x\\y, \u00e4",
    "host-7 of some, some-host-70, malloryx",
]


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    monkeypatch.setattr("socket.gethostname", lambda: "some-host-7.example.com")
    monkeypatch.setattr("getpass.getuser", lambda: "mallory")


@pytest.mark.parametrize("planted", [*PRIVATE, str(Path.home() / "zoo")])
def test_private_data_is_refused(small: Path, planted: str, somebody: None) -> None:
    plant(small, planted)
    with pytest.raises(TrainingError, match=re.escape("pt-1/member.json")) as caught:
        plan(small)
    assert planted not in str(caught.value)


def test_escaped_private_data_is_refused_before_any_request(hub: Hub, token: Token, small: Path) -> None:
    path = small / "pt-1/member.json"
    text = path.read_text()
    path.write_text(text.replace('"deviations": [', r'"deviations": ["\/h\u006fme\/somebody",'))  # JSON for a path
    assert path.read_text() != text
    with pytest.raises(TrainingError, match="local path"):
        push(small)
    assert not hub.requests


def test_ordinary_text_is_not_taken_for_private_data(small: Path, somebody: None) -> None:
    plant(small, *PUBLIC)
    publication = plan(small)
    assert any("task-specific" in file.read().decode() for file in publication.members[MemberId(1)][:4])


@pytest.mark.parametrize(
    ("user", "host", "planted", "refused"),
    [
        ("root", "gx1", "on gx1, as ever", "this machine's name"),
        ("root", "n-a", "on n-a", "this machine's name"),
        ("root", "gpu", "on a gpu", None),
        ("root", "7", "on 7", None),
        ("root", "pt-3", "from pt-3", None),
        ("root", "digits", "of digits", None),
        ("ann", "vm", "ann on vm", None),
        ("linear", "accuracy", "linear accuracy", None),
        ("anna", "vm", "by Anna", "your user's name"),
        ("anna", "vm", "by Annabel", None),
        ("my-lab", "vm", "by my-lab", "your user's name"),
        ("org", "vit-zoo", "org/vit-zoo", None),
    ],
)
def test_names_of_user_and_machine_are_refused_where_they_identify(
    small: Path, monkeypatch: pytest.MonkeyPatch, user: str, host: str, planted: str, refused: str | None
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    monkeypatch.setattr("getpass.getuser", lambda: user)
    plan(small)
    plant(small, planted)
    if refused is None:
        plan(small)
        return
    with pytest.raises(TrainingError, match=refused):
        plan(small)


def test_the_zoos_own_path_and_the_token_are_refused(hub: Hub, small: Path) -> None:
    plant(small, str(small))
    with pytest.raises(TrainingError, match="local path"):
        plan(small)
    plant(small, "token-of-no-pattern")
    with pytest.raises(TrainingError, match="credential"):
        publish(plan(small), token="token-of-no-pattern")
    assert not hub.requests
