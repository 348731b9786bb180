"""Test that private data is never published, and that nothing is sent if a file holds some."""

import json
import logging
from pathlib import Path

import pytest
from msgspec import structs

from tests.hub import Hub, Token
from tests.training.publish.zoos import plan, push
from training.publish.privacy import Privacy
from training.publish.push import publish
from vitzoo import records
from vitzoo.errors import TrainingError
from vitzoo.hub_http import _SignaturesHidden
from vitzoo.ids import MemberId
from vitzoo.records.json_files import write_json


def plant(zoo: Path, *texts: str) -> None:
    """Write texts into a member's record."""
    path = zoo / "pt-1/member.json"
    write_json(path, structs.replace(records.load_member_record(path), deviations=texts))


PATHS = ("home", "Users", "root", "tmp", "mnt", "media", "data", "srv", "scratch", "opt", "var")
PRIVATE = [
    *("ran on some-host-7", "ran on Some-Host-7.example.com", "asked mallory about it", "/work" + "/mallory/x"),
    *(f"read from /{root}/" + "somebody/x" for root in PATHS),
    *(
        "/beegfs/" + "group/x",
        "read /a/b",
        "(/p/project1/x)",
        "'/cluster/work'",
        "//beegfs/" + "group",
        "/a//b",
        "/1/x",
    ),
    *("/$USER/x", "/~somebody/x", "/.snapshots/x", "path=/Groups/x", "x,/u/y", "<b>/beegfs/x</b>", "/donn\u00e9es/x"),
    *(
        "KAGGLE_KEY=0123456789abcdef",
        "export DB_PASSWORD='hunter2-x'",
        "the other is kaggle-kaggle",
        "it is opened-opened",
    ),
    *(
        '{"username": "somebody", "key": "' + "0a" * 16 + '"}',
        "eyJhbGciOiJIUzI1" + ".eyJzdWIiOiIxMjM0",
        "npm_" + "a" * 36,
    ),
    *("cache:/data/x", 'cache="/scratch/x"', "--out=/home/" + "somebody", "/lustre/home/" + "somebody/x"),
    *("file:///etc/passwd", "see ~/zoo", "see ~somebody/zoo"),
    *(r"read from C:\Users\somebody", "read from C:/Users/" + "somebody", r"D:\zoo", r"\\server\share\zoo"),
    *("git@example.com:org/private.git", "somebody@cluster:zoo", "ssh://example.com/x", "git+ssh://example.com/x"),
    *("pip install git+https://example.com/x", "https://example.com/org/private.git"),
    *("http://example.com/org/private.git@main", "https://user:password@example.com/x"),
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
    "org/name, datasets/org/name, image/png, /3/4 of it, 1/2/3, km/h/s, /single, and /or",
    "*/data/x, **/a/b, {zoo}/a/b, ${root}/a/b, <org>/<name>/<x>, zoo:/pt-0/ft-1, <zoo>/pt-0/ft-1, f(x)/a/b",
    "https://example.org/#/a/b, https://example.org/wiki/ViT_(model)/a/b, \u2026/a/b, .../a/b",
    'KEY = 3, KEYBOARD=us-intl-long, TOKENIZER=bert-base-uncased, "pad_token": "<|endoftext|>", HF_TOKEN=<yours>',
    "it is bert-base-uncased, us-intl-long, by Ann Author, Ann-Author-Name",
    "lr 1e-3\\2, x\\y, \u00e4",
    "host-7 of some, some-host-70, malloryx",
]

PUBLIC_VARIABLES = {
    "TOKENIZER": "bert-base-uncased",
    "XKB_KEYBOARD": "us-intl-long",
    "GIT_AUTHOR_NAME": "Ann-Author-Name",
}


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    monkeypatch.setenv("KAGGLE_KEY", "kaggle-kaggle")
    monkeypatch.setenv("DB_PASSPHRASE", "opened-opened")
    for name, value in PUBLIC_VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.gethostname", lambda: "some-host-7.example.com")
    monkeypatch.setattr("getpass.getuser", lambda: "mallory")


@pytest.mark.parametrize("private", [*PRIVATE, str(Path.home() / "zoo")])
def test_check_refuses_private_data(private: str, somebody: None, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"pt-1/member\.json") as error:
        Privacy(tmp_path).check("pt-1/member.json", json.dumps(private).encode())
    assert private not in str(error.value)


def test_publish_refuses_escaped_private_data_before_any_request(hub: Hub, token: Token, small: Path) -> None:
    path = small / "pt-1/member.json"
    text = path.read_text()
    path.write_text(text.replace('"deviations": [', r'"deviations": ["\/h\u006fme\/somebody",'))  # JSON for a path
    assert path.read_text() != text
    with pytest.raises(TrainingError, match="local path") as error:
        push(small)
    assert error.value.problem.startswith("pt-1/member.json")
    assert not hub.requests


def test_plan_accepts_ordinary_text(small: Path, somebody: None) -> None:
    plant(small, *PUBLIC)
    publication = plan(small)
    assert any("task-specific" in file.read().decode() for file in publication.members[MemberId(1)][:4])


@pytest.mark.parametrize(
    ("user", "host", "text", "refused"),
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
def test_check_refuses_names_that_identify_user_or_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: str, host: str, text: str, refused: str | None
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    monkeypatch.setattr("getpass.getuser", lambda: user)
    privacy = Privacy(tmp_path, public=("org/vit-zoo", "org/vit-zoo-metadata"))
    if refused is None:
        privacy.check("README.md", text.encode())
        return
    with pytest.raises(TrainingError, match=refused):
        privacy.check("README.md", text.encode())


def test_publish_refuses_the_zoos_path_and_the_token(hub: Hub, small: Path) -> None:
    plant(small, str(small))
    with pytest.raises(TrainingError, match="local path"):
        plan(small)
    plant(small, "token-of-no-pattern")
    with pytest.raises(TrainingError, match="credential"):
        publish(plan(small), token="token-of-no-pattern")
    assert not hub.requests


def test_long_texts_are_searched_in_linear_time(tmp_path: Path) -> None:
    Privacy(tmp_path).check("metrics.jsonl", b"https://a/" * 20_000)  # a quadratic search takes minutes
    record = logging.LogRecord("hub", logging.INFO, "", 0, "?" * 200_000, (), None)
    assert _SignaturesHidden().filter(record)
    record.msg = "GET https://host/file?a=?b&Signature=secret 200"
    assert _SignaturesHidden().filter(record)
    assert record.getMessage() == "GET https://host/file?a=?(signed) 200"
