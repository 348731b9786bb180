"""A zoo in a folder that the system refuses to read, in whole or in part."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitzoo import VitZooModel, Zoo
from vitzoo.errors import UnreadableError, ZooNotFoundError
from vitzoo.records.files import check_readable


@pytest.fixture
def readable_zoo(tiny_zoo: Path) -> Iterator[Path]:
    """Return a copy of the tiny zoo that any user of this machine can read."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield Path(shutil.copytree(tiny_zoo, folder / "zoo"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nobody() -> Iterator[None]:
    """Run the test without root's right to read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def read_all(zoo: Path) -> None:
    Zoo(zoo).select()
    VitZooModel.from_pretrained(zoo / "pt-0", verify=True)


@pytest.mark.parametrize(
    "denied",
    ["zoo.json", "pt-0", "pt-0/member.json", "pt-0/metrics.jsonl", "pt-0/model.safetensors", "."],
)
def test_denied_permission_is_an_error_with_the_path(
    denied: str, readable_zoo: Path, request: pytest.FixtureRequest
) -> None:
    read_all(readable_zoo)  # its imports need root's rights on some machines
    (readable_zoo / denied).chmod(0)
    request.getfixturevalue("nobody")
    with pytest.raises(UnreadableError) as raised:
        read_all(readable_zoo)
    assert str(raised.value.path).startswith(str(readable_zoo / denied))
    assert raised.value.fix


def test_absent_path_is_not_unreadable(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for name in ("nothing", "loop", "file/below", "x" * 5000, "a\0b"):
        check_readable(tmp_path / name)
    with pytest.raises(ZooNotFoundError):
        Zoo(tmp_path / "loop")
