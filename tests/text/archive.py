"""A small source distribution of the layout of vaderSentiment's, with made-up sentences."""

import io
import tarfile

from tests.text.sentences import label_of, sentence

GENRES = ("movieReviewSnippets", "tweets", "amazonReviewSnippets", "nytEditorialSnippets")


def lines_of(genre: str, count: int = 60) -> list[str]:
    """Return lines with strong, weak and no ratings."""
    first = GENRES.index(genre) * 1000
    return [
        f"{seed}_1\t{(2 * label_of(seed) - 1) * (0.25 + seed % 3)}\t{sentence(seed)}"
        for seed in range(first, first + count)
    ]


def make_archive(lines: dict[str, list[str]] | None = None, *, encoding: str = "utf-8-sig") -> bytes:
    """Return the bytes of an archive, with some of its files replaced."""
    files = {
        f"hutto_ICWSM_2014/{genre}_GroundTruth.txt": "\r\n".join((lines or {}).get(genre, lines_of(genre))).encode(
            encoding
        )
        for genre in GENRES
    }
    inner = _pack(files)
    return _pack({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner})


def _pack(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
