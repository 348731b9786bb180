"""Load image data sets from a folder: class folders, parquet files, or a folder of `datasets`' save_to_disk.

    folder/train/<class>/*.jpg, folder/validation/<class>/*.jpg      imagefolder: classes and files sorted by name
    folder/train-00000-of-00002.parquet, folder/data/test.parquet    parquet, as on the Hub
    folder/dataset_dict.json, folder/train/state.json, ...           a folder of datasets' save_to_disk

The files of the folder decide its layout. ``validation`` may be called ``val`` or ``valid``. Pickles are not read: the
authors' folder of CIFAR-100 is refused with the command that gets it as parquet.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vitzoo.errors import DatasetError, printable, shown
from vitzoo.images.assemble import assemble, requested_splits
from vitzoo.images.known import LAYOUTS, check_folder, find_known
from vitzoo.images.sources import ImageFiles
from vitzoo.images.splits import FileSplit, ImageDataset
from vitzoo.images.tables import assemble_tables, check_splits
from vitzoo.records.dataset_spec import DatasetSpec

# torchvision's ImageFolder takes files with these endings for images.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_SYNONYMS = {"validation": ("val", "valid"), "val": ("validation", "valid")}


def load_from_folder(images: DatasetSpec, folder: Path) -> ImageDataset:
    """Load a data set from a folder.

    Raises:
        DatasetError: The folder does not exist, has none of the layouts, or does not fit the spec.
    """
    check_folder(images.name, folder)
    for pickles in (folder, folder / "cifar-100-python"):
        if all((pickles / name).is_file() for name in ("meta", "train", "test")):
            raise DatasetError(
                f"{printable(str(pickles))} has CIFAR-100 as Python pickles",
                expected=LAYOUTS,
                fix="Get it as parquet: hf download uoft-cs/cifar100 --repo-type dataset --local-dir ./cifar100, "
                "then name that folder.",
                dataset=images.name,
            )
    if (folder / "dataset_dict.json").is_file():
        return _load_saved(images, folder)
    if parquet := _parquet_splits(images, folder):
        return _load_parquet(images, parquet)
    splits = {entry.name: entry for entry in _folders(folder)}
    if any(name in splits for name in _spellings(images.train_split)):
        return _load_class_folders(images, splits)
    train = printable(images.train_split)
    raise DatasetError(
        f"{printable(str(folder))} has no images of {shown(images.name)}: no {train}/ with class folders, no "
        f"{train}*.parquet, no dataset_dict.json",
        expected=LAYOUTS,
        dataset=images.name,
    )


def _spellings(split: str) -> tuple[str, ...]:
    return (split, *_SYNONYMS.get(split, ()))


def _spelled(images: DatasetSpec, known: Mapping[str, object]) -> dict[str, str]:
    """Return the folder's spelling of each split that a spec asks for."""
    splits = requested_splits(images).values()
    spelled = {split: next((name for name in _spellings(split) if name in known), split) for split in splits}
    check_splits(images, spelled.values(), known)
    return spelled


def _load_class_folders(images: DatasetSpec, splits: Mapping[str, Path]) -> ImageDataset:
    known = find_known(images.name)
    for field in ("image_column", "label_column"):
        column = getattr(images, field)
        if column is not None and (known is None or column != getattr(known.spec, field)):
            raise DatasetError(
                f"{field} is {shown(column)}, but the folder of {shown(images.name)} has class folders",
                expected="None, because class folders have no columns",
                fix="Change the DatasetSpec, or name a folder of tables.",
                dataset=images.name,
            )
    spelled = _spelled(images, splits)
    roots = {part: splits[spelled[split]] for part, split in requested_splits(images).items()}
    classes = tuple(folder.name for folder in _folders(roots["train"]))
    if not classes:
        raise DatasetError(
            f"{printable(str(roots['train']))} has no class folders",
            expected=f"{printable(images.train_split)}/<class>/<image>, as for torchvision's ImageFolder",
            dataset=images.name,
        )
    parts = {part: _list_class_folders(images, root, classes) for part, root in roots.items()}
    return assemble(images, revision="imagefolder", classes=classes, parts=parts)


def _list_class_folders(images: DatasetSpec, root: Path, classes: tuple[str, ...]) -> FileSplit:
    labels, names = [], []
    for folder in _folders(root):
        if folder.name not in classes:
            raise DatasetError(
                f"{printable(str(folder))} is a class that {printable(images.train_split)} does not have",
                expected=f"its {len(classes)} classes, from {shown(classes[0])} to {shown(classes[-1])}",
                dataset=images.name,
            )
        before = len(names)
        names += [f"{folder.name}/{name}" for name in _image_names(folder)]
        labels += [classes.index(folder.name)] * (len(names) - before)
    if not names:
        loose = next(_image_names(root), None)
        raise DatasetError(
            f"{printable(str(root))} has no images in class folders"
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
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return (name for name in names if name.lower().endswith(_EXTENSIONS))


def _parquet_splits(images: DatasetSpec, folder: Path) -> dict[str, list[Path]]:
    """Return parquet files by split: in the configuration's folder, or else in the folder or its only one with any."""
    if images.config is None and (splits := _parquet_files(folder)):
        return splits
    places = [place for place in _folders(folder) if images.config in (None, place.name)]
    layouts = [splits for place in places if (splits := _parquet_files(place))]
    if len(layouts) > 1:
        raise DatasetError(
            f"{printable(str(folder))} has parquet files in {len(layouts)} folders",
            fix="Name one as config in the DatasetSpec, or name the folder itself.",
            dataset=images.name,
        )
    return layouts[0] if layouts else {}


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Return parquet files by split: train-00000-of-00002, train_1 and train belong to the split train."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        split = re.match(r"[A-Za-z]+(?:[A-Za-z0-9.]*[A-Za-z0-9](?=[-_.]))?", path.stem + ".")
        if split and path.is_file():
            splits.setdefault(split[0], []).append(path)
    return splits


def _load_parquet(images: DatasetSpec, splits: Mapping[str, list[Path]]) -> ImageDataset:
    import datasets

    spelled = _spelled(images, splits)
    try:
        # One by one: together they would all be taken to have the classes of the first.
        tables = {
            split: datasets.load_dataset(
                "parquet", data_files={split: [str(path) for path in splits[name]]}, split=split
            )
            for split, name in spelled.items()
        }
    except Exception as error:
        raise _unreadable(images, splits[spelled[images.train_split]][0].parent, error) from error
    return assemble_tables(images, tables, revision="parquet")


def _load_saved(images: DatasetSpec, folder: Path) -> ImageDataset:
    import datasets

    try:
        saved = {str(split): rows for split, rows in datasets.DatasetDict.load_from_disk(str(folder)).items()}
    except Exception as error:
        raise _unreadable(images, folder, error) from error
    tables = {split: saved[name] for split, name in _spelled(images, saved).items()}
    return assemble_tables(images, tables, revision="arrow")


def _unreadable(images: DatasetSpec, folder: Path, error: Exception) -> DatasetError:
    cause = error.__cause__ or error  # the explanation is in the cause of the error that `datasets` raises
    return DatasetError(
        f"{printable(str(folder))} cannot be read as {shown(images.name)}: {type(cause).__name__}: "
        f"{printable(str(cause))[:500].rstrip(' .')}",
        fix="Get the folder again.",
        dataset=images.name,
    )
