"""What data sets are called: those whose columns and splits are known, and how `data` names the folder of one.

    data={"cifar100": "./cifar100"}                 uoft-cs/cifar100, by its short name
    data={"imagenet-1k": "/data/imagenet"}          ILSVRC/imagenet-1k, by the last part of its name
    data={"me/flowers": "./flowers"}                any data set, by its whole name

Pure names: folders are read in `disk.py`; here is only said which are not there.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from vitzoo.errors import DatasetError, did_you_mean, printable, shown
from vitzoo.records.dataset_spec import DatasetSpec

LAYOUTS = "class folders (train/<class>/*.jpg), parquet files (train-*.parquet), or a folder of datasets' save_to_disk"
# The Hub's grammar of names, of which huggingface_hub also takes the part without an owner.
_PART = r"\w(?:[\w.-]{0,94}\w)?"
_REPO_ID = re.compile(f"(?!.*(?:--|\\.\\.|\\.git$)){_PART}/{_PART}", re.ASCII)

LAYOUT_REVISIONS = ("imagefolder", "parquet", "arrow")  # the revision of a data set in a folder


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownDataset:
    """A data set of the Hub whose columns and splits need not be said.

    Args:
        spec: Its columns and splits.
        alias: A short name.
        download: What getting it takes, in words.
    """

    spec: DatasetSpec
    alias: str
    download: str


KNOWN = (
    KnownDataset(
        spec=DatasetSpec(name="uoft-cs/cifar100", image_column="img", label_column="fine_label"),
        alias="cifar100",
        download="about 160 MB",
    ),
    KnownDataset(
        spec=DatasetSpec(
            name="ILSVRC/imagenet-1k",
            image_column="image",
            label_column="label",
            test_split="validation",  # the labels of its test images are not published
            streamed=True,
        ),
        alias="imagenet",
        download=(
            "about 155 GB, and as much again for the cache; gated: accept its terms at "
            "https://huggingface.co/datasets/ILSVRC/imagenet-1k, then log in (hf auth login) or set HF_TOKEN"
        ),
    ),
)


def find_known(name: str) -> KnownDataset | None:
    """The known data set of this name or alias."""
    return next((known for known in KNOWN if name in (known.spec.name, known.alias)), None)


def complete(images: DatasetSpec) -> DatasetSpec:
    """A spec with its whole name and, of a known data set, with what is known where it says nothing of its own.

    Args:
        images: What a recipe says; a field that has its default says nothing.
    """
    known = find_known(images.name)
    if known is None:
        return images
    silent = DatasetSpec(name=images.name)
    unsaid = {name for name in DatasetSpec.__struct_fields__ if getattr(images, name) == getattr(silent, name)}
    if images.held_out:
        unsaid -= {"val_split"}
    return replace(images, **{name: getattr(known.spec, name) for name in unsaid | {"name"}})


def names_of(name: str) -> tuple[str, ...]:
    """Every way in which ``data`` may name a data set: the whole name, its last part, the alias."""
    known = find_known(name)
    whole = name if known is None else known.spec.name
    names = (whole, whole.rpartition("/")[2], *(() if known is None else (known.alias,)))
    return tuple(dict.fromkeys(names))


def find_folder(name: str, data: Mapping[str, Path]) -> Path | None:
    """The folder that ``data`` names for a data set, absolute; None where it names none.

    Raises:
        DatasetError: It names two.
    """
    folders = {key: Path(os.path.expanduser(data[key])).absolute() for key in names_of(name) if key in data}
    if len(set(folders.values())) > 1:
        given = ", ".join(f"{key}={folder}" for key, folder in folders.items())
        raise DatasetError(f"Two folders were named for {shown(name)}: {given}", fix="Name one.", dataset=name)
    return next(iter(folders.values()), None)


def is_repo_id(name: str) -> bool:
    """Whether a name is that of a repo on the Hub, ``<owner>/<name>``, without a revision, a path or a pattern."""
    return _REPO_ID.fullmatch(name) is not None


def check_fetched(name: str, data: Mapping[str, str | os.PathLike[str]], *, asked_by: str) -> None:
    """Check that a data set which somebody else's record names is not fetched from the Hub unasked.

    Args:
        name: Of the data set, as the record says it.
        data: Folders by name: what lies in one of them was asked for.
        asked_by: Whose record it is, for the message.

    Raises:
        DatasetError: It would come from the Hub, and is none of `KNOWN`.
    """
    named = find_folder(name, {key: Path(folder) for key, folder in data.items()})
    if named is not None or find_known(name) is not None or not is_repo_id(name):
        return
    short = names_of(name)[-1]
    raise DatasetError(
        f"{asked_by} asks for the data set {shown(name)}, which vitzoo does not know; what a record alone names is not "
        f"downloaded. If you trust it, get it yourself: hf download {name} --repo-type dataset --local-dir ./folder, "
        f'then --data {short}=./folder in a shell, or data={{"{short}": "./folder"}} in Python.',
        dataset=name,
    )


def parse_data(options: Iterable[str]) -> dict[str, Path]:
    """The ``--data`` options of a command line.

    Args:
        options: Each ``NAME=FOLDER``.

    Returns:
        Folders by name, as `vitzoo.images.load_images` takes them.

    Raises:
        DatasetError: An option is not of that form, or a name is given twice.
    """
    data: dict[str, Path] = {}
    for option in options:
        name, equals, folder = option.partition("=")
        if not name or not equals or not folder:
            raise DatasetError(
                f"--data says {shown(option)}",
                expected="NAME=FOLDER, such as cifar100=./cifar100",
                dataset=name or None,
            )
        if name in data:
            raise DatasetError(
                f"--data names {shown(name)} twice: {data[name]} and {folder}", fix="Name one.", dataset=name
            )
        data[name] = Path(folder)
    return data


def check_data(data: Mapping[str, Path], used: Iterable[str | None]) -> None:
    """Check that ``data`` names folders, of data sets that are used, so that no spelling mistake is passed over.

    Args:
        data: Folders by name.
        used: Names of the data sets that are used; None for an unknown one.

    Raises:
        DatasetError: A name is none of them, one data set has two folders, or a folder is not there or is a file.
    """
    datasets = tuple(dict.fromkeys(name for name in used if name is not None))
    names = [name for dataset in datasets for name in names_of(dataset)]
    for name in data:
        if name not in names:
            raise DatasetError(
                f"data names a folder for {shown(name)}, which is no data set that is used here."
                f"{did_you_mean(name, names)}",
                dataset=name,
            )

    for name in datasets:
        folder = find_folder(name, data)
        if folder is not None:
            check_folder(DatasetSpec(name=name), folder)


def check_folder(images: DatasetSpec, folder: Path) -> None:
    """Check that the folder of a data set is there.

    Raises:
        DatasetError: It is not, or is a file.
    """
    place, name = printable(str(folder)), shown(images.name)
    if folder.is_dir():
        return
    if folder.exists():
        raise DatasetError(
            f"{place}, which was named for {name}, is a file",
            expected=f"a folder, which may hold {LAYOUTS}",
            fix="Name the folder that the file lies in, or unpack it.",
            dataset=images.name,
        )
    raise DatasetError(
        f"The folder {place} that was named for {name} is not there.{how_to_get(images)}", dataset=images.name
    )


def how_to_get(images: DatasetSpec) -> str:
    """The end of a message: what to download, and where a copy on disk may be named."""
    known = find_known(images.name)
    name = names_of(images.name)[-1]
    download = "" if known is None else f" ({known.download})"
    return (
        f" Get it once with a connection{download}, or name a folder that holds it: --data {name}=./folder in a shell, "
        f'data={{"{name}": "./folder"}} in Python. The folder may hold {LAYOUTS}.'
    )
