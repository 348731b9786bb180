"""load_images: a data set by its spec, from where it is."""

from collections.abc import Mapping
from functools import cache
from os import PathLike
from pathlib import Path

from vitzoo.errors import DatasetError, did_you_mean, shown
from vitzoo.images.assemble import assemble
from vitzoo.images.digits import DIGITS, load_digits_named
from vitzoo.images.known import KNOWN, complete, find_folder, is_repo_id, names_of
from vitzoo.images.splits import ImageDataset
from vitzoo.records.dataset_spec import DatasetSpec


def load_images(images: DatasetSpec | str, *, data: Mapping[str, str | PathLike[str]] | None = None) -> ImageDataset:
    """A data set; loaded once a process.

    Args:
        images: Which; a name alone for what is bundled or known: ``digits-0-5`` or ``digits-6-9``, scikit-learn's 1,797
            handwritten digits of 8 x 8 pixels, cut into contiguous train, validation and test blocks and filtered by
            class, grey repeated on three channels; ``uoft-cs/cifar100``; ``ILSVRC/imagenet-1k``, which is streamed. Any
            other data set of the Hub, or of a folder, by a `DatasetSpec` with its columns and splits.
        data: Folders of data sets that are on this machine, by name (``cifar100``, ``imagenet``, or the whole name or
            its last part); others come from the Hub, or its cache.

    Returns:
        Its splits; validation has length 0 where the spec names none and holds none out.

    Raises:
        DatasetError: No data set has this name, it cannot be had, or it is not what the spec says; the message says
            what to download and where to put it.
    """
    if isinstance(images, str) and not images:
        raise _unknown(images)
    wanted = complete(DatasetSpec(name=images) if isinstance(images, str) else images)
    return _load(wanted, find_folder(wanted.name, {name: Path(folder) for name, folder in (data or {}).items()}))


@cache
def _load(images: DatasetSpec, folder: Path | None) -> ImageDataset:
    if folder is not None:
        from vitzoo.images.disk import find_on_disk

        return assemble(images, find_on_disk(images, folder))
    if images.name in DIGITS:
        if images != DatasetSpec(name=images.name):
            raise DatasetError(
                f"{shown(images.name)} is bundled with its splits, but {images} says others",
                fix="Say its name alone.",
                dataset=images.name,
            )
        return load_digits_named(images.name)
    if not is_repo_id(images.name):
        raise _unknown(images.name)
    from vitzoo.images.hub import find_on_hub

    return assemble(images, find_on_hub(images))


def _unknown(name: str) -> DatasetError:
    known = [*DIGITS, *(name for one in KNOWN for name in names_of(one.spec.name))]
    return DatasetError(
        f"No image data set is called {shown(name)}.{did_you_mean(name, known)} Those of the Hub are called "
        "<owner>/<name>, of letters, digits, - _ and full stops; those of a folder are named by data.",
        dataset=name,
    )
