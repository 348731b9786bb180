"""Load a data set by its spec. See `vitzoo.data.known` for the names of data sets and of their folders."""

from collections.abc import Mapping
from functools import cache
from os import PathLike
from pathlib import Path

from vitzoo.data.known import KNOWN, NAME_FOLDER, complete, find_folder, is_repo_id, names_of
from vitzoo.errors import DatasetError, did_you_mean, shown
from vitzoo.images.digits import DIGITS, find_digits, load_digits_named
from vitzoo.images.splits import ImageDataset
from vitzoo.records.dataset_spec import DatasetSpec


def load_images(images: DatasetSpec | str, *, data: Mapping[str, str | PathLike[str]] | None = None) -> ImageDataset:
    """Load a data set, once a process.

    Args:
        images: The data set. A name is enough for a bundled or known one: ``digits-0-5`` or ``digits-6-9``,
            scikit-learn's digits of 8 x 8 pixels; ``uoft-cs/cifar100``; ``ILSVRC/imagenet-1k``, which is streamed. Any
            other data set, of the Hub or a folder, needs a `DatasetSpec` with its columns and splits.
        data: Folders of data sets by name: ``cifar100``, ``imagenet``, or a whole name or its last part. Other data
            sets come from the Hub, or its cache.

    Returns:
        Its splits; validation has length 0 where the spec has neither ``val_split`` nor ``held_out``.

    Raises:
        DatasetError: The name is unknown, the data set cannot be loaded, or it does not fit the spec. The message says
            what to download, and how to name a folder.
    """
    if isinstance(images, str):
        if not images:
            raise _unknown(images)
        images = DatasetSpec(name=images)
    images = complete(images)
    return _load(images, find_folder(images.name, {name: Path(folder) for name, folder in (data or {}).items()}))


def check_images(images: DatasetSpec, *, data: Mapping[str, Path]) -> None:
    """Check within moments that `load_images` finds a data set, without loading it.

    Raises:
        DatasetError: The name is unknown, scikit-learn is not installed, a folder has none of the layouts, or the Hub's
            data set is neither in the cache nor within reach.
    """
    images = complete(images)
    if (folder := find_folder(images.name, data)) is not None:
        from vitzoo.images.disk import check_layout

        check_layout(images, folder)
        return
    if images.name in DIGITS:
        find_digits(images.name)
        return
    if not is_repo_id(images.name):
        raise _unknown(images.name)
    from vitzoo.data.hub import check_hub_dataset

    check_hub_dataset(images)


@cache
def _load(images: DatasetSpec, folder: Path | None) -> ImageDataset:
    if folder is not None:
        from vitzoo.images.disk import load_from_folder

        return load_from_folder(images, folder)
    if images.name in DIGITS:
        if images != DatasetSpec(name=images.name):
            raise DatasetError(
                f"{shown(images.name)} comes with its own splits, but the spec is {images}",
                expected="its name alone",
                dataset=images.name,
            )
        return load_digits_named(images.name)
    if not is_repo_id(images.name):
        raise _unknown(images.name)
    from vitzoo.data.hub import load_hub_tables
    from vitzoo.images.tables import assemble_tables

    return assemble_tables(images, load_hub_tables(images))


def _unknown(name: str) -> DatasetError:
    names = [*DIGITS, *(name for known in KNOWN for name in names_of(known.spec.name))]
    return DatasetError(
        f"No image data set is called {shown(name)}",
        expected="<owner>/<name> for a data set of the Hub (letters, digits, - _ and full stops)",
        fix=f"{NAME_FOLDER}{did_you_mean(name, names)}",
        dataset=name,
    )
