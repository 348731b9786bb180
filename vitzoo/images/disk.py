"""Load image data sets from a folder: class folders, parquet files, or a folder of `datasets`' save_to_disk.

    folder/train/<class>/*.jpg, folder/validation/<class>/*.jpg      imagefolder: classes and files sorted by name
    folder/train-00000-of-00002.parquet, folder/data/test.parquet    parquet, as on the Hub
    folder/dataset_dict.json, folder/train/state.json, ...           a folder of datasets' save_to_disk

The files of the folder decide its layout. Pickles are not read: the authors' folder of CIFAR-100 is refused with the
command that gets it as parquet. See `vitzoo.data.disk` for tables.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vitzoo.data.columns import requested_splits
from vitzoo.data.disk import has_tables, load_folder_tables, spelled, spellings, subfolders
from vitzoo.data.known import LAYOUTS, check_folder, find_known
from vitzoo.errors import DatasetError, printable, shown
from vitzoo.images.assemble import assemble
from vitzoo.images.sources import ImageFiles
from vitzoo.images.splits import FileSplit, ImageDataset
from vitzoo.images.tables import assemble_tables
from vitzoo.records.dataset_spec import DatasetSpec

# torchvision's ImageFolder takes files with these endings for images.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_KINDS = ("parquet",)  # of tables, beside a folder of save_to_disk


def load_from_folder(images: DatasetSpec, folder: Path) -> ImageDataset:
    """Load a data set from a folder.

    Raises:
        DatasetError: The folder does not exist, has none of the layouts, or does not fit the spec.
    """
    check_layout(images, folder)
    tables = load_folder_tables(images, folder, kinds=_KINDS)
    if tables is not None:
        return assemble_tables(images, tables)
    return _load_class_folders(images, {entry.name: entry for entry in subfolders(folder)})


def check_layout(images: DatasetSpec, folder: Path) -> None:
    """Check that a folder has tables, or class folders of the training split, without reading them.

    Raises:
        DatasetError: The folder does not exist, or has neither.
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
    splits = {entry.name for entry in subfolders(folder)}
    if has_tables(images, folder, kinds=_KINDS) or splits.intersection(spellings(images.train_split)):
        return
    train = printable(images.train_split)
    raise DatasetError(
        f"{printable(str(folder))} has no images of {shown(images.name)}: no {train}/ with class folders, no "
        f"{train}*.parquet, no dataset_dict.json",
        expected=LAYOUTS,
        dataset=images.name,
    )


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
    names = spelled(images, splits)
    roots = {part: splits[names[split]] for part, split in requested_splits(images).items()}
    classes = tuple(folder.name for folder in subfolders(roots["train"]))
    if not classes:
        raise DatasetError(
            f"{printable(str(roots['train']))} has no class folders",
            expected=f"{printable(images.train_split)}/<class>/<image>, as for torchvision's ImageFolder",
            dataset=images.name,
        )
    parts = {
        part: list_class_folders(root, classes, of=images.train_split, dataset=images.name)
        for part, root in roots.items()
    }
    return assemble(images, revision="imagefolder", classes=classes, parts=parts)


def list_class_folders(root: Path, classes: tuple[str, ...], *, of: str, dataset: str | None = None) -> FileSplit:
    """List the images in a folder of class folders, without decoding one.

    Args:
        root: The folder.
        classes: Names of the classes, in the order of the labels.
        of: Name of the owner of the classes, for messages.
        dataset: Name of the data set, for errors.

    Raises:
        DatasetError: A class is unknown, or there are no images.
    """
    labels, names = [], []
    for folder in subfolders(root):
        if folder.name not in classes:
            raise DatasetError(
                f"{printable(str(folder))} is a class that {printable(of)} does not have",
                expected=f"its {len(classes)} classes, from {shown(classes[0])} to {shown(classes[-1])}",
                dataset=dataset,
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
            dataset=dataset,
        )
    source = ImageFiles(root=root, names=np.array([os.fsencode(name) for name in names]))
    return FileSplit(source=source, labels=np.array(labels, dtype=np.int64), indices=np.arange(len(names)))


def _image_names(folder: Path) -> Iterator[str]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return (name for name in names if name.lower().endswith(_EXTENSIONS))
