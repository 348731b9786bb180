"""Find image data sets in a folder: class folders, parquet files, or a folder of `datasets`' save_to_disk.

    folder/train/<class>/*.jpg, folder/validation/<class>/*.jpg      imagefolder: classes and files sorted by name
    folder/train-00000-of-00002.parquet, folder/data/test.parquet    parquet, as the Hub lays it out
    folder/dataset_dict.json, folder/train/state.json, ...           a folder of datasets' save_to_disk

The files of the folder decide its layout. ``validation`` may be called ``val`` or ``valid``. Pickles are not read. The
authors' folder of CIFAR-100, cifar-100-python, is refused with the command that gets it as parquet.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vitzoo.errors import DatasetError, printable, shown
from vitzoo.images.assemble import Found, wanted_splits
from vitzoo.images.hub import import_datasets
from vitzoo.images.known import LAYOUTS, check_folder, find_known
from vitzoo.images.sources import ImageFiles
from vitzoo.images.splits import FileSplit
from vitzoo.images.tables import find_in_tables, no_split
from vitzoo.records.dataset_spec import DatasetSpec

# What torchvision's ImageFolder takes for an image.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_ALSO = {"validation": ("val", "valid"), "val": ("validation", "valid")}


def find_on_disk(images: DatasetSpec, folder: Path) -> Found:
    """The splits of a data set in a folder.

    Args:
        images: Which, complete.
        folder: Where.

    Raises:
        DatasetError: There is no such folder, it holds none of the layouts, or its splits and classes are others.
    """
    check_folder(images, folder)
    for pickles in (folder, folder / "cifar-100-python"):
        if all((pickles / name).is_file() for name in ("meta", "train", "test")):
            raise DatasetError(
                f"{printable(str(pickles))} has CIFAR-100 as Python pickles",
                expected=f"{LAYOUTS}",
                fix="Get it as parquet: hf download uoft-cs/cifar100 --repo-type dataset --local-dir ./cifar100, "
                "then name that folder.",
                dataset=images.name,
            )
    if (folder / "dataset_dict.json").is_file():
        return _find_saved(images, folder)
    parquet = _parquet_splits(images, folder)
    if parquet:
        return _find_parquet(images, parquet)
    splits = {entry.name: entry for entry in _folders(folder)}
    if any(name in splits for name in _spellings(images.train_split)):
        return _find_class_folders(images, splits)
    train = printable(images.train_split)
    raise DatasetError(
        f"{printable(str(folder))} holds no images of {shown(images.name)}: no "
        f"{train}/ with class folders, no {train}*.parquet, no dataset_dict.json. It may hold {LAYOUTS}.",
        dataset=images.name,
    )


def _spellings(split: str) -> tuple[str, ...]:
    return (split, *_ALSO.get(split, ()))


def _spelled(images: DatasetSpec, split: str, known: Mapping[str, object]) -> str:
    """The name that a split has here."""
    for name in _spellings(split):
        if name in known:
            return name
    raise no_split(images, split, known)


def _find_class_folders(images: DatasetSpec, splits: Mapping[str, Path]) -> Found:
    _refuse_columns(images)
    wanted = {part: splits[_spelled(images, split, splits)] for part, split in wanted_splits(images).items()}
    classes = tuple(folder.name for folder in _folders(wanted["train"]))
    if not classes:
        raise DatasetError(
            f"{printable(str(wanted['train']))} holds no class folders",
            expected=f"{printable(images.train_split)}/<class>/<image>, as torchvision's ImageFolder takes it",
            dataset=images.name,
        )
    parts = {part: _list_class_folders(images, folder, classes) for part, folder in wanted.items()}
    return Found(revision="imagefolder", classes=classes, parts=parts)


def _refuse_columns(images: DatasetSpec) -> None:
    """Class folders have no columns; those that are known of a data set, and so not said by anybody, may stand."""
    known = find_known(images.name)
    for field in ("image_column", "label_column"):
        column = getattr(images, field)
        if column is not None and (known is None or column != getattr(known.spec, field)):
            raise DatasetError(
                f"{field} is {shown(column)}, but the folder that was named for {shown(images.name)} holds "
                "class folders, which have no columns",
                fix=f"Take {field} out of the DatasetSpec, or name a folder of tables.",
                dataset=images.name,
            )


def _list_class_folders(images: DatasetSpec, root: Path, classes: tuple[str, ...]) -> FileSplit:
    labels, names = [], []
    for folder in _folders(root):
        if folder.name not in classes:
            raise DatasetError(
                f"{printable(str(folder))} is a class that {printable(images.train_split)} has not: it has "
                f"{len(classes)}, from {shown(classes[0])} to {shown(classes[-1])}. The folders of all splits have the "
                "same names.",
                dataset=images.name,
            )
        before = len(names)
        names += [f"{folder.name}/{name}" for name in _image_names(folder)]
        labels += [classes.index(folder.name)] * (len(names) - before)
    if not names:
        loose = next(_image_names(root), None)
        raise DatasetError(
            f"{printable(str(root))} holds no images in class folders"
            f"{('' if loose is None else f', but {printable(loose)} outside of one')}",
            expected=f"{printable(root.name)}/<class>/<image>",
            fix="Sort the images into the folders of their classes.",
            dataset=images.name,
        )
    source = ImageFiles(root=root, names=np.array([os.fsencode(name) for name in names]))
    return FileSplit(source=source, labels=np.array(labels, dtype=np.int64), indices=np.arange(len(names)))


def _folders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return [root / name for name in names]


def _image_names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    return (name for name in names if name.lower().endswith(_EXTENSIONS))


def _parquet_splits(images: DatasetSpec, folder: Path) -> dict[str, list[Path]]:
    """Parquet files by split: the folder's, data/'s or the configuration's, or those of the one folder that has any."""
    named = [images.config] if images.config is not None else [".", "data"]
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in named):
        raise DatasetError(
            f"config is {shown(images.config)}",
            expected=f"the name of a folder in {printable(str(folder))}",
            dataset=images.name,
        )
    places = [folder / name for name in named if (folder / name).is_dir()]
    found = [splits for splits in map(_parquet_files, places) if splits]
    if not found and images.config is None:
        found = [splits for splits in map(_parquet_files, _folders(folder)) if splits]
        if len(found) > 1:
            raise DatasetError(
                f"{printable(str(folder))} has parquet files in {len(found)} folders",
                fix="Name one as config in the DatasetSpec, or name the folder itself.",
                dataset=images.name,
            )
    return found[0] if found else {}


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """train-00000-of-00002.parquet, train_1.parquet and train.parquet are of the split train."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        split = re.match(r"[A-Za-z]+(?:[A-Za-z0-9.]*[A-Za-z0-9](?=[-_.]))?", path.stem + ".")
        if split and path.is_file():
            splits.setdefault(split[0], []).append(path)
    return splits


def _find_parquet(images: DatasetSpec, splits: Mapping[str, list[Path]]) -> Found:
    datasets = import_datasets(images.name)
    wanted = {split: _spelled(images, split, splits) for split in wanted_splits(images).values()}
    files = {split: [str(path) for path in splits[name]] for split, name in wanted.items()}
    try:
        # One by one: together they would all be taken to have the classes of the first.
        tables = {
            split: datasets.load_dataset("parquet", data_files={split: paths}, split=split)
            for split, paths in files.items()
        }
    except Exception as error:
        raise _unreadable(images, splits[wanted[images.train_split]][0].parent, error) from error
    return find_in_tables(images, tables, revision="parquet")


def _find_saved(images: DatasetSpec, folder: Path) -> Found:
    datasets = import_datasets(images.name)
    try:
        saved = {str(split): rows for split, rows in datasets.DatasetDict.load_from_disk(str(folder)).items()}
    except Exception as error:
        raise _unreadable(images, folder, error) from error
    wanted = {split: _spelled(images, split, saved) for split in wanted_splits(images).values()}
    return find_in_tables(images, {split: saved[name] for split, name in wanted.items()}, revision="arrow")


def _unreadable(images: DatasetSpec, folder: Path, error: Exception) -> DatasetError:
    cause = error.__cause__ or error  # `datasets` says what went wrong in the cause of what it raises
    return DatasetError(
        f"{printable(str(folder))} cannot be read as {shown(images.name)}: {type(cause).__name__}: "
        f"{printable(str(cause))[:500].rstrip(' .')}",
        fix="Get the folder again.",
        dataset=images.name,
    )
