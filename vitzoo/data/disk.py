"""Load tables from a folder: files of one kind, or a folder of `datasets`' save_to_disk.

    folder/train-00000-of-00002.parquet, folder/data/test.parquet    parquet, as on the Hub
    folder/train.csv, folder/test.csv                                CSV with a header (texts)
    folder/train.jsonl, folder/test.jsonl                            JSON lines (texts)
    folder/dataset_dict.json, folder/train/state.json, ...           a folder of datasets' save_to_disk

``validation`` may be called ``val`` or ``valid``.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitzoo.data.columns import Tables, check_splits, requested_splits
from vitzoo.data.known import Spec
from vitzoo.errors import DatasetError, printable, shown

if TYPE_CHECKING:
    import datasets

BUILDERS = {"parquet": ("parquet",), "csv": ("csv",), "json": ("jsonl", "json")}  # of `datasets`: endings of files
_OPTIONS = {"csv": {"keep_default_na": False, "na_values": [""]}}  # "NA" and "null" are texts
_SYNONYMS = {"validation": ("val", "valid"), "val": ("validation", "valid")}


def has_tables(spec: Spec, folder: Path, *, kinds: Sequence[str]) -> bool:
    """Tell whether `load_folder_tables` finds tables in a folder, without reading them."""
    return (folder / "dataset_dict.json").is_file() or any(_files_by_split(spec, folder, BUILDERS[k]) for k in kinds)


def load_folder_tables(spec: Spec, folder: Path, *, kinds: Sequence[str]) -> Tables | None:
    """Load the splits of a data set from a folder of save_to_disk, or of files of one of these kinds of `BUILDERS`.

    Returns:
        The tables; None where the folder has neither.

    Raises:
        DatasetError: A file cannot be read, a split does not exist, or two folders have files.
    """
    if (folder / "dataset_dict.json").is_file():
        return _load_saved(spec, folder)
    for kind in kinds:
        if files := _files_by_split(spec, folder, BUILDERS[kind]):
            return _load_files(spec, files, kind)
    return None


def spellings(split: str) -> tuple[str, ...]:
    """Return the names that a split may have in a folder."""
    return (split, *_SYNONYMS.get(split, ()))


def spelled(spec: Spec, known: Mapping[str, object]) -> dict[str, str]:
    """Return the folder's spelling of each split that a spec asks for.

    Raises:
        DatasetError: The folder does not have one.
    """
    splits = requested_splits(spec).values()
    names = {split: next((name for name in spellings(split) if name in known), split) for split in splits}
    check_splits(spec, names.values(), known)
    return names


def subfolders(root: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, without hidden ones."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return [root / name for name in names]


def _files_by_split(spec: Spec, folder: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Return files by split: in the configuration's folder, or else in the folder or its only one with any."""
    if spec.config is None and (splits := _files_in(folder, endings)):
        return splits
    places = [place for place in subfolders(folder) if spec.config in (None, place.name)]
    layouts = [splits for place in places if (splits := _files_in(place, endings))]
    if len(layouts) > 1:
        raise DatasetError(
            f"{printable(str(folder))} has {endings[0]} files in {len(layouts)} folders",
            fix=f"Name one as config in the {type(spec).__name__}, or name the folder itself.",
            dataset=spec.name,
        )
    return layouts[0] if layouts else {}


def _files_in(folder: Path, endings: tuple[str, ...]) -> dict[str, list[Path]]:
    """Return files by split: train-00000-of-00002, train_1 and train belong to the split train."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(path for ending in endings for path in folder.glob(f"*.{ending}")):
        split = re.match(r"[A-Za-z]+(?:[A-Za-z0-9.]*[A-Za-z0-9](?=[-_.]))?", path.stem + ".")
        if split and path.is_file():
            splits.setdefault(split[0], []).append(path)
    return splits


def _load_files(spec: Spec, splits: Mapping[str, list[Path]], kind: str) -> Tables:
    # One by one: together they would all be taken to have the classes of the first.
    tables = {split: _load_split(spec, splits[name], kind, split) for split, name in spelled(spec, splits).items()}
    return Tables(splits=tables, revision=kind)


def _load_split(spec: Spec, files: list[Path], kind: str, split: str) -> "datasets.Dataset":
    import datasets

    names = [str(file) for file in files]
    try:
        return datasets.load_dataset(kind, data_files={split: names}, split=split, **_OPTIONS.get(kind, {}))
    except Exception as error:
        if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
            raise DatasetError(
                f"Split {shown(split)} of {shown(spec.name)} has no rows: {printable(names[0])}",
                expected="one or more",
                fix="Get the folder again.",
                dataset=spec.name,
            ) from None
        raise _unreadable(spec, files[0].parent, error) from error


def _load_saved(spec: Spec, folder: Path) -> Tables:
    import datasets

    try:
        saved = {str(split): rows for split, rows in datasets.DatasetDict.load_from_disk(str(folder)).items()}
    except Exception as error:
        raise _unreadable(spec, folder, error) from error
    return Tables(splits={split: saved[name] for split, name in spelled(spec, saved).items()}, revision="arrow")


def _unreadable(spec: Spec, folder: Path, error: Exception) -> DatasetError:
    cause = error.__cause__ or error  # the explanation is in the cause of the error that `datasets` raises
    return DatasetError(
        f"{printable(str(folder))} cannot be read as {shown(spec.name)}: {type(cause).__name__}: "
        f"{printable(str(cause))[:500].rstrip(' .')}",
        fix="Get the folder again.",
        dataset=spec.name,
    )
