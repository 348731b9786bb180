"""Load the rated sentences of the source distribution of vaderSentiment 3.3.2, fetched once by pip, by its hash.

    snippets-films      sentences of film reviews
    snippets-others     tweets, and sentences of product reviews and of editorials
    snippets-all        both

About 20 people rated each sentence from -4 to 4, and the sign of the mean is its class. A mean near 0 has no class:
within 1.5 for film reviews, whose verdicts are strong, and within 1 for the others. Such sentences are left out, except
for packed rows, which need no class. Source: Hutto and Gilbert 2014, VADER.

The sentences belong to their authors. They are fetched by each user, and never part of vitzoo or of a zoo. The archive
is kept in ``$XDG_CACHE_HOME/vitzoo``, or in ``~/.cache/vitzoo``.
"""

import hashlib
import html
import io
import math
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from filelock import FileLock

from vitzoo.data.cache import cache_folder
from vitzoo.errors import DatasetError, printable, shown
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.records.files import file_sha256
from vitzoo.text.assemble import TextParts, choose_texts
from vitzoo.text.sources import ListedTexts

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SIZE = 2_466_783
CLASSES = ("negative", "positive")
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_FILES = {  # mean ratings from which a sentence has a class
    "movieReviewSnippets": 1.5,
    "tweets": 1.0,
    "amazonReviewSnippets": 1.0,
    "nytEditorialSnippets": 1.0,
}
_GENRES: dict[str, tuple[str, ...]] = {  # the files of a data set
    "snippets-films": ("movieReviewSnippets",),
    "snippets-others": ("tweets", "amazonReviewSnippets", "nytEditorialSnippets"),
    "snippets-all": tuple(_FILES),
}
_PARTS = ("test", "val", *["train"] * 8)  # by the last digit of a hash of the sentence
_LARGEST = 2**24  # bytes of a file in the archive
_TIMEOUT = 600.0  # seconds
_TRUE = ("1", "ON", "YES", "TRUE")  # huggingface_hub's


def choose_snippets(spec: TextSpec, source: Path | None, *, special_tokens: tuple[str, ...]) -> TextParts:
    """Choose the sentences of one of `SNIPPETS`.

    Args:
        spec: The data set: its name, ``max_length``, ``packed`` and ``train_texts``.
        source: The archive, or its folder; None for the cache, which pip fills.
        special_tokens: Texts of the special tokens.

    Raises:
        DatasetError: The spec has another field, or the archive cannot be had or is not the right file.
    """
    check_snippets_spec(spec)
    file = find_archive(spec.name, source)
    return parse_snippets(spec, file.read_bytes(), special_tokens=special_tokens, named=str(file))


def check_snippets_spec(spec: TextSpec) -> None:
    """Check that a spec names nothing that the snippets do not have.

    Raises:
        DatasetError: It does.
    """
    if spec != TextSpec(name=spec.name, max_length=spec.max_length, packed=spec.packed, train_texts=spec.train_texts):
        raise DatasetError(
            f"{shown(spec.name)} has its own splits and columns, but the spec is {spec}",
            expected="its name, max_length, packed and train_texts alone",
            dataset=spec.name,
        )


def find_archive(name: str, source: Path | None) -> Path:
    """Return the checked archive, and fetch it into the cache if need be.

    Args:
        name: The data set, for messages.
        source: The archive, or its folder; None for the cache.

    Raises:
        DatasetError: It does not exist, is not the right file, or cannot be fetched.
    """
    if source is not None:
        file = source / ARCHIVE if source.is_dir() else source
        _check_archive(name, file)
        return file
    cache = cache_folder()
    file = cache / ARCHIVE
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{ARCHIVE}.lock"):
            problem = _problem(name, file)
            if problem is not None:
                _fetch(name, file, problem=problem)
    except OSError as error:
        raise DatasetError(
            f"{printable(str(cache))} cannot be written: {error.strerror or error}",
            fix=f"Make it writable, or name another folder: XDG_CACHE_HOME. {_how_to_get(cache)}",
            dataset=name,
        ) from None
    return file


def parse_snippets(
    spec: TextSpec, archive: bytes, *, special_tokens: tuple[str, ...] = (), named: str = ARCHIVE
) -> TextParts:
    """Choose the sentences of a data set from the bytes of the source distribution.

    Sentences with both classes are left out, and so are repetitions. The hash of a sentence decides its part.

    Raises:
        DatasetError: The archive lacks a file, or a line is not an id, a rating and a sentence.
    """
    ratings: dict[str, set[int]] = {}
    found: dict[str, tuple[str, int, int]] = {}  # by key: the first sentence, its class and its place
    place = 0
    for genre, threshold in _FILES.items():
        if genre not in _GENRES[spec.name]:
            continue
        for rating, text in _iter_lines(spec, archive, genre, named):
            label = -1 if abs(rating) < threshold else int(rating > 0)
            key = " ".join(text.casefold().split())
            if key and (spec.packed or label >= 0):
                ratings.setdefault(key, set()).add(label)
                found.setdefault(key, (text, label, place))
            place += 1
    kept: dict[str, list[tuple[str, int, int]]] = {part: [] for part in ("train", "val", "test")}
    for key, sample in found.items():
        if spec.packed or len(ratings[key]) == 1:
            kept[_PARTS[int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % len(_PARTS)]].append(sample)
    splits = {
        part: ListedTexts(
            texts=[text for text, _, _ in samples],
            name=f"{shown(spec.name)} for {part}",
            labels=None if spec.packed else np.array([label for _, label, _ in samples], dtype=np.int64),
            indices=np.array([place for _, _, place in samples], dtype=np.int64),
        )
        for part, samples in kept.items()
    }
    return choose_texts(
        msgspec.structs.replace(spec, val_split="val"),
        revision="vaderSentiment 3.3.2",
        classes=() if spec.packed else CLASSES,
        splits=splits,
        special_tokens=special_tokens,
    )


def _iter_lines(spec: TextSpec, archive: bytes, genre: str, named: str) -> Iterator[tuple[float, str]]:
    """Yield the rating and the sentence of each line of a file, HTML entities replaced by their characters."""
    file = f"hutto_ICWSM_2014/{genre}_GroundTruth.txt"
    try:
        lines = _member(_member(archive, _INNER), file).decode("utf-8-sig").rstrip("\r\n").split("\n")
    except (tarfile.TarError, KeyError, EOFError, OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{printable(named)} has no readable {file}: {printable(str(error))[:200].rstrip(' .')}",
            expected=f"the source distribution {ARCHIVE}",
            fix=_how_to_get(Path()),
            dataset=spec.name,
        ) from None
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\r").split("\t")
        try:
            rating = float(fields[1])
            sound = len(fields) == 3 and math.isfinite(rating)
        except (IndexError, ValueError):
            sound, rating = False, 0.0
        if not sound:
            raise DatasetError(
                f"Line {number} of {file} in {printable(named)} is {shown(line)}",
                expected="an id, a mean rating and a sentence, between tabs",
                fix=_how_to_get(Path()),
                dataset=spec.name,
            )
        yield rating, html.unescape(html.unescape(fields[2])).strip()  # some are escaped twice


def _member(archive: bytes, name: str) -> bytes:
    """Return a file of a compressed archive."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        entry = opened.getmember(name)
        file = opened.extractfile(entry)
        if file is None or entry.size > _LARGEST:
            raise KeyError(name)
        return file.read()


def _check_archive(name: str, file: Path) -> None:
    """Check that a file is the archive."""
    problem = _problem(name, file)
    if problem is not None:
        raise DatasetError(
            problem,
            expected=f"{ARCHIVE}, sha256 {SHA256[:16]}...",
            fix=_how_to_get(file.parent),
            dataset=name,
        )


def _problem(name: str, file: Path) -> str | None:
    """Return the reason why a file is not the archive; None if it is."""
    where = f"{printable(str(file))}, the source of {shown(name)},"
    if not file.is_file():
        return f"{where} does not exist"
    if file.suffix == ".whl" or zipfile.is_zipfile(file):
        return f"{where} is a wheel, which does not have the sentences"
    size, digest = file.stat().st_size, file_sha256(file)
    if digest == SHA256:
        return None
    if size < SIZE:
        return f"{where} is truncated: it has {size} bytes of {SIZE}"
    return f"{where} has sha256 {digest[:16]}..."


def _fetch(name: str, file: Path, *, problem: str) -> None:
    """Download the archive by pip, which compares its hash, because of a problem with the file in the cache."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        raise DatasetError(
            f"{problem} and HF_HUB_OFFLINE is set",
            expected=f"{ARCHIVE}, sha256 {SHA256[:16]}...",
            fix=f"Get it once with a connection. {_how_to_get(file.parent)}",
            dataset=name,
        )
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SHA256}\n")
        try:
            run = subprocess.run(
                [sys.executable, "-m", *_command(requirements, Path(folder))],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
            )
            lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
            cause = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        except subprocess.TimeoutExpired:
            cause = f"no answer within {_TIMEOUT:.0f} s"
        fetched = [path for path in Path(folder).iterdir() if path.name.lower() == ARCHIVE.lower()]
        if not fetched:
            raise DatasetError(
                f"pip could not fetch the sentences of {shown(name)}: {printable(cause)[:300].rstrip(' .')}",
                fix=_how_to_get(file.parent),
                dataset=name,
            )
        _check_archive(name, fetched[0])
        os.replace(fetched[0], file)


def _command(requirements: Path, folder: Path) -> list[str]:
    options = ["--no-deps", "--no-binary", "vaderSentiment", "--require-hashes", "--disable-pip-version-check"]
    return ["pip", "download", *options, "--requirement", str(requirements), "--dest", str(folder)]


def _how_to_get(folder: Path) -> str:
    """Return the fix of an error: the command, and how to name a copy."""
    command = (
        f"pip download --no-deps --no-binary vaderSentiment vaderSentiment==3.3.2 --dest {shlex.quote(str(folder))}"
    )
    return (
        f"Run: {command}. Or name a copy of {ARCHIVE}: --data snippets=FILE in a shell, "
        'data={"snippets": "FILE"} in Python; its folder will do.'
    )
