"""Read the state of a zoo folder during and after training, for comparisons in tests."""

import contextlib
import hashlib
import json
from pathlib import Path

from safetensors import safe_open


def finished(folder: Path) -> list[str]:
    """Return the ids of the finished members."""
    files = [*folder.glob("pt-*/member.json"), *folder.glob("pt-*/ft-*/member.json")]
    return sorted(path.parent.relative_to(folder).as_posix() for path in files)


def under_way(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Return the saved lines of timing.jsonl of each unfinished member, from which its training resumes."""
    timings = {}
    for path in (folder / ".training" / "work").glob("*@*/resume.safetensors"):
        member = path.parent.name.partition("@")[0].replace(".", "/")
        # It may be deleted at any moment, and then safetensors or torch raises.
        with contextlib.suppress(FileNotFoundError, RuntimeError), safe_open(path, "pt") as file:
            timings[member] = json.loads(file.metadata()["state"])["timings"]
    return {member: lines for member, lines in timings.items() if member not in finished(folder)}


def timings_of(folder: Path, member: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / member / "timing.jsonl").read_text().splitlines()]


def leave_halves(folder: Path) -> None:
    """Write the partial files and torn lines of a process that is killed while it writes."""
    resumed = under_way(folder)
    for member in (folder / ".training" / "work").glob("*@*/member"):
        (member / ".model.epoch-02.safetensors.partial").write_bytes(b"\0" * 9)
        if len(resumed.get(member.parent.name.partition("@")[0].replace(".", "/"), ())) < 3:
            (member / "model.epoch-02.safetensors").write_bytes(b"\0" * 9)
        (member / ".member.json.partial").write_text('{"format": 1,')
        for name in ("metrics.jsonl", "timing.jsonl"):
            with open(member / name, "a") as file:
                file.write('{"epoch": 2, "st')
        (member.parent / ".resume.safetensors.partial").write_bytes(b"\0" * 9)


def touched(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, time and size of every file of the finished members."""
    paths = [path for member in finished(folder) for path in (folder / member).iterdir() if path.is_file()]
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def content(folder: Path) -> dict[str, str]:
    """Hash every file of a zoo, without clock times and the trainer's own files."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "timing.jsonl"]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith(".training/")
    }


def check_whole(folder: Path, reference: Path) -> None:
    """Assert that a zoo equals an undisturbed one byte for byte, without unfinished work or leases."""
    assert content(folder) == content(reference)
    assert list((folder / ".training" / "work").iterdir()) == []
    assert list((folder / ".training" / "leases").iterdir()) == []
    for member in finished(folder):
        assert [line["epoch"] for line in timings_of(folder, member)] == [
            line["epoch"] for line in timings_of(reference, member)
        ]
