"""Write and read prepared folders: the rows of data sets, encoded once, for every process to memory-map.

    prepared.json                           format, digest of the tokenizer, and a record of each data set
    tokenizer.json, tokenizer_config.json   the tokenizer
    0/train.token_ids.npy, 0/train.offsets.npy, ...     arrays of a `TextSplit`, for each part of the first data set

A folder is whole or absent: it is written under another name and then renamed. Arrays are numpy's own format, read
without pickles. See `load.py` for how ``data`` names a folder.
"""

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from vitzoo.errors import DatasetError, printable
from vitzoo.records.dataset_spec import TextSpec
from vitzoo.records.files import sync
from vitzoo.records.json_files import Record, load_record, write_json
from vitzoo.text.splits import NO_LABEL, TextDataset, TextSplit
from vitzoo.text.tokenizer import Tokenizer, load_tokenizer

PREPARED = "prepared.json"
FORMAT = 1
_DTYPES = {"token_ids": "<i4", "offsets": "<i8", "labels": "<i8", "indices": "<i8", "second": "<i4"}
_PARTS = ("train", "val", "test")
_CHUNK = 2**24  # tokens that are checked at once
_FULL = (errno.ENOSPC, errno.EDQUOT)


class PreparedDataset(Record, frozen=True, kw_only=True):
    """A data set of a prepared folder.

    Args:
        spec: The data set.
        revision: Source of the texts.
        classes: Names of the classes.
        fingerprint: Digest of the rows and the tokenizer.
        folder: Name of the folder of the arrays.
        dropped: Number of texts that were left out, by reason.
    """

    spec: TextSpec
    revision: str
    classes: tuple[str, ...]
    fingerprint: str
    folder: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4}\Z")]
    dropped: dict[str, int]


class PreparedRecord(Record, frozen=True, kw_only=True):
    """Content of prepared.json.

    Args:
        format: Version of the folder's layout.
        tokenizer_sha256: Digest of tokenizer.json.
        datasets: The data sets, each with another spec.
    """

    format: int
    tokenizer_sha256: str
    datasets: tuple[PreparedDataset, ...]


def is_prepared(folder: Path) -> bool:
    """Return whether a folder was prepared."""
    return (folder / PREPARED).is_file()


def write_prepared(
    folder: Path,
    specs: Sequence[TextSpec],
    tokenizer: Tokenizer,
    *,
    load: Callable[[TextSpec], TextDataset],
    say: Callable[[str], None] = lambda line: None,
    timeout: float = 0.0,
) -> bool:
    """Encode data sets into a folder, unless it already has them.

    Args:
        folder: The folder; it does not exist yet, is empty, or was prepared before.
        specs: The data sets, complete.
        tokenizer: Their tokenizer.
        load: Returns a data set.
        say: Takes a line for each data set.
        timeout: Seconds to wait for another process that prepares the folder.

    Returns:
        Whether the folder was written; False where it was prepared before.

    Raises:
        DatasetError: The folder has other files, another tokenizer or other data sets, another process prepares it, or
            the disk is full. As ``load``.
    """
    folder = folder.absolute()
    partial, lock = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=timeout):
            try:
                if _has_all(folder, specs, tokenizer):
                    return False
                shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
                _write(partial, specs, tokenizer, load=load, say=say)
                os.rename(partial, folder)
                sync(folder.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                if not timeout:  # others may wait for the file
                    lock.unlink(missing_ok=True)
    except Timeout:
        raise DatasetError(
            f"Another process prepares {printable(str(folder))}", fix="Wait until it is done, or end it."
        ) from None
    except OSError as error:
        fix = "Make room, or name another folder." if error.errno in _FULL else "Make the folder writable."
        raise DatasetError(
            f"{printable(str(folder))} cannot be written: {error.strerror or error}", fix=f"{fix} Nothing was left."
        ) from error
    return True


def load_prepared(spec: TextSpec, folder: Path, tokenizer: Tokenizer | None) -> TextDataset:
    """Memory-map a data set of a prepared folder, and check all of it.

    Args:
        spec: The data set, complete.
        folder: The folder.
        tokenizer: Tokenizer that its rows must have; None for the folder's own.

    Raises:
        RecordError: prepared.json is damaged.
        ConfigError: The tokenizer is damaged.
        DatasetError: The folder has another tokenizer or lacks the data set, or its arrays are damaged: a row is longer
            than the spec allows or padded on the left, or a token or label is out of range.
    """
    found, own = find_prepared(spec, folder, tokenizer)
    place = folder / found.folder
    splits = {part: _read_split(place, part, spec) for part in _PARTS}
    for part, split in splits.items():
        _check_split(spec, split, own, classes=len(found.classes), named=f"{part} of {printable(str(place))}")
    dataset = TextDataset(
        name=spec.name,
        revision=found.revision,
        classes=found.classes,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        tokenizer=own,
        dropped=found.dropped,
    )
    if dataset.fingerprint != found.fingerprint:
        raise _damaged(
            spec,
            f"{printable(str(place))} has fingerprint {dataset.fingerprint[:16]}...",
            f"{found.fingerprint[:16]}..., as {PREPARED} says",
        )
    return dataset


def open_prepared(folder: Path, tokenizer: Tokenizer | None = None) -> tuple[PreparedRecord, Tokenizer]:
    """Return the record and the tokenizer of a prepared folder.

    Raises:
        RecordError: prepared.json is damaged.
        ConfigError: The tokenizer is damaged.
        DatasetError: The folder has another tokenizer than its record says or than is given.
    """
    record, own = load_record(PreparedRecord, folder / PREPARED, newest=FORMAT), load_tokenizer(folder)
    expected = own if tokenizer is None else tokenizer
    for sha256, by in ((record.tokenizer_sha256, PREPARED), (expected.sha256, "the model")):
        if own.sha256 != sha256:
            raise DatasetError(
                f"{printable(str(folder))} has the tokenizer {own.sha256[:16]}..., {by} has {sha256[:16]}...",
                expected="one tokenizer",
                fix="Prepare the texts with the tokenizer of the model, into another folder.",
            )
    return record, own


def find_prepared(
    spec: TextSpec, folder: Path, tokenizer: Tokenizer | None = None
) -> tuple[PreparedDataset, Tokenizer]:
    """Return the record of a data set in a prepared folder, and the folder's tokenizer. Raises as `open_prepared`.

    Raises:
        DatasetError: The folder lacks the data set.
    """
    record, own = open_prepared(folder, tokenizer)
    found = next((dataset for dataset in record.datasets if dataset.spec == spec), None)
    if found is None:
        raise DatasetError(
            f"{printable(str(folder))} does not have {spec}",
            expected=" or ".join(str(dataset.spec) for dataset in record.datasets) or "a data set",
            fix="Prepare the recipe again, into another folder.",
            dataset=spec.name,
        )
    return found, own


def _has_all(folder: Path, specs: Sequence[TextSpec], tokenizer: Tokenizer) -> bool:
    """Return whether a folder has every data set; False if it may be written."""
    if is_prepared(folder):
        for spec in specs:
            find_prepared(spec, folder, tokenizer)
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(
            f"{printable(str(folder))} exists, and was not prepared",
            expected="a new or empty folder",
            fix="Name another folder.",
        )
    return False


def _write(
    folder: Path,
    specs: Sequence[TextSpec],
    tokenizer: Tokenizer,
    *,
    load: Callable[[TextSpec], TextDataset],
    say: Callable[[str], None],
) -> None:
    """Write the files of a prepared folder, prepared.json last."""
    folder.mkdir()
    tokenizer.write(folder, max_length=max(spec.max_length for spec in specs))
    datasets = []
    for number, spec in enumerate(dict.fromkeys(specs)):
        dataset, place = load(spec), folder / str(number)
        place.mkdir()
        for part in _PARTS:
            for name, array in _arrays(getattr(dataset, part)).items():
                np.save(place / f"{part}.{name}.npy", array.astype(_DTYPES[name], copy=False), allow_pickle=False)
                sync(place / f"{part}.{name}.npy")
        datasets.append(
            PreparedDataset(
                spec=spec,
                revision=dataset.revision,
                classes=dataset.classes,
                fingerprint=dataset.fingerprint,
                folder=place.name,
                dropped=dict(dataset.dropped),
            )
        )
        rows = ", ".join(f"{len(getattr(dataset, part)):,} {part}" for part in _PARTS)
        say(f"{printable(spec.name)}: {rows} rows")
    record = PreparedRecord(format=FORMAT, tokenizer_sha256=tokenizer.sha256, datasets=tuple(datasets))
    write_json(folder / PREPARED, record)


def _arrays(split: TextSplit) -> Mapping[str, np.ndarray]:
    arrays = {name: getattr(split, name) for name in _DTYPES}
    return {name: array for name, array in arrays.items() if array is not None}


def _read_split(place: Path, part: str, spec: TextSpec) -> TextSplit:
    """Memory-map the arrays of a split."""
    arrays: dict[str, Any] = {}
    for name, dtype in _DTYPES.items():
        path = place / f"{part}.{name}.npy"
        if name == "second" and spec.pair_column is None:
            continue
        try:
            mode = "r" if name == "token_ids" else None
            arrays[name] = np.load(path, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(
                spec, f"{printable(str(path))} cannot be read: {printable(str(error))[:200]}", "an array"
            ) from None
        if arrays[name].dtype != np.dtype(dtype) or arrays[name].ndim != 1:
            raise _damaged(spec, f"{printable(str(path))} has {arrays[name].dtype} {arrays[name].shape}", dtype)
    rows = len(arrays["labels"])
    lengths = {name: len(array) for name, array in arrays.items() if name not in ("token_ids", "offsets")}
    if set(lengths.values()) != {rows} or len(arrays["offsets"]) != rows + 1:
        raise _damaged(spec, f"{part} of {printable(str(place))} has arrays of {lengths}", "one length")
    return TextSplit(**arrays)


def _check_split(spec: TextSpec, split: TextSplit, tokenizer: Tokenizer, *, classes: int, named: str) -> None:
    """Check the rows of a split against the spec, the tokenizer and the classes."""
    offsets, lengths = split.offsets, split.lengths
    if offsets[0] or offsets[-1] != len(split.token_ids) or lengths.min(initial=2) < 2:
        raise _damaged(spec, f"The rows of {named} do not fill its tokens", "rows of two or more tokens")
    if lengths.max(initial=0) > spec.max_length:
        raise _damaged(
            spec,
            f"Row {lengths.argmax()} of {named} has {lengths.max()} tokens",
            f"at most {spec.max_length}, the max_length",
        )
    for start in range(0, len(split.token_ids), _CHUNK):
        tokens = split.token_ids[start : start + _CHUNK]
        if tokens.min() < 0 or tokens.max() >= tokenizer.vocab_size:
            raise _damaged(
                spec,
                f"{named} has token {tokens.max() if tokens.min() >= 0 else tokens.min()}",
                f"0 to {tokenizer.vocab_size - 1}",
            )
        if (tokens == tokenizer.pad_id).any():
            raise _damaged(spec, f"{named} has padding, the token {tokenizer.pad_id}", "rows without padding")
    if (split.token_ids[offsets[:-1]] != tokenizer.cls_id).any():
        raise _damaged(spec, f"A row of {named} does not begin with the token {tokenizer.cls_id}", "each does")
    least, most = (NO_LABEL, NO_LABEL) if spec.packed else (0, classes - 1)
    if len(split) and not least <= split.labels.min() <= split.labels.max() <= most:
        raise _damaged(spec, f"{named} has labels {split.labels.min()} to {split.labels.max()}", f"{least} to {most}")
    if split.second is not None and not ((split.second > 0) & (split.second < lengths)).all():
        raise _damaged(spec, f"A second text of {named} begins outside of its row", "a place in the row")


def _damaged(spec: TextSpec, problem: str, expected: str) -> DatasetError:
    return DatasetError(problem, expected=expected, fix="Prepare the folder again.", dataset=spec.name)
