"""Name data sets: known data sets need no columns and splits, and `data` names the folder of any.

    data={"cifar100": "./cifar100"}                 uoft-cs/cifar100, by its short name
    data={"snippets": "./vaderSentiment-3.3.2.tar.gz"}      the snippets, whose source may also be a file
    data={"imagenet-1k": "/data/imagenet"}          ILSVRC/imagenet-1k, by the last part of its name
    data={"me/flowers": "./flowers"}                any data set, by its whole name

`KNOWN` has images, `KNOWN_TEXTS` texts. See `vitzoo.images.disk` and `vitzoo.data.disk` for how folders are read.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from vitzoo.errors import DatasetError, did_you_mean, printable, shown
from vitzoo.records.dataset_spec import DatasetSpec, TextSpec

Spec = DatasetSpec | TextSpec
S = TypeVar("S", DatasetSpec, TextSpec)

DATA_VARIABLE = "VITZOO_DATA"
LAYOUTS = "class folders (train/<class>/*.jpg), parquet files (train-*.parquet), or a folder of datasets' save_to_disk"
TEXT_LAYOUTS = (
    "parquet, CSV or JSON lines files (train-*.parquet, train.csv, train.jsonl), a folder of datasets' save_to_disk, "
    "or a folder of prepared texts"
)
NAME_FOLDER = 'Name the folder of any other one: --data NAME=FOLDER in a shell, data={"NAME": "FOLDER"} in Python.'
# The Hub's grammar of names; huggingface_hub also takes the part without an owner.
_PART = r"\w(?:[\w.-]{0,94}\w)?"
_REPO_ID = re.compile(f"(?!.*(?:--|\\.\\.|\\.git$)){_PART}/{_PART}", re.ASCII)

LAYOUT_REVISIONS = ("imagefolder", "parquet", "csv", "json", "arrow")  # the revision of a data set in a folder


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownDataset:
    """A data set whose columns and splits are known.

    Args:
        spec: Its columns and splits.
        alias: A short name, or one of several data sets of one source.
        download: Size and terms of the download, in words.
    """

    spec: Spec
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
    KnownDataset(
        spec=DatasetSpec(name="uoft-cs/cifar10", image_column="img", label_column="label"),
        alias="cifar10",
        download="about 144 MB",
    ),
)
SNIPPETS = ("snippets-films", "snippets-others", "snippets-all")
KNOWN_TEXTS = (
    *(
        KnownDataset(spec=TextSpec(name=name), alias="snippets", download="2.4 MB by pip, which vitzoo runs once")
        for name in SNIPPETS
    ),
    KnownDataset(
        spec=TextSpec(
            name="nyu-mll/glue",
            config="sst2",
            text_column="sentence",
            label_column="label",
            test_split="validation",  # the labels of its test sentences are not published
            unusable="drop",
        ),
        alias="sst2",
        download="about 7 MB",
    ),
    KnownDataset(
        spec=TextSpec(
            name="Skylion007/openwebtext",
            text_column="text",
            test_split=None,
            held_out=10_000,
            test_held_out=10_000,
            packed=True,
            unusable="drop",
        ),
        alias="openwebtext",
        download="about 13 GB, and 40 GB for the cache",
    ),
)


def find_known(name: str) -> KnownDataset | None:
    """Return the known data set of this name or alias; None also for an alias of several."""
    known = [known for known in (*KNOWN, *KNOWN_TEXTS) if name in (known.spec.name, known.alias)]
    return known[0] if len(known) == 1 else None


def complete(spec: S) -> S:
    """Return a spec with its whole name; a known data set's fields replace fields that have their default."""
    known = find_known(spec.name)
    if known is None or not isinstance(known.spec, type(spec)) or spec.config not in (None, known.spec.config):
        return spec
    plain = type(spec)(name=spec.name)
    defaults = {name for name in spec.__struct_fields__ if getattr(spec, name) == getattr(plain, name)}
    for field, other in (("held_out", "val_split"), ("val_split", "held_out"), ("test_held_out", "test_split")):
        if getattr(spec, field, None):
            defaults -= {other}
    return replace(spec, **{name: getattr(known.spec, name) for name in defaults | {"name"}})


def names_of(name: str) -> tuple[str, ...]:
    """Return every name of a data set in ``data``: the whole name, its last part, the alias."""
    known = find_known(name)
    whole = name if known is None else known.spec.name
    names = (whole, whole.rpartition("/")[2], *(() if known is None else (known.alias,)))
    return tuple(dict.fromkeys(names))


def find_folder(name: str, data: Mapping[str, Path]) -> Path | None:
    """Return the folder that ``data``, or else ``$VITZOO_DATA``, names for a data set, absolute; None for none.

    Raises:
        DatasetError: It names two, or the variable has another form.
    """
    if not any(key in data for key in names_of(name)):
        data = parse_data(filter(None, os.environ.get(DATA_VARIABLE, "").split(os.pathsep)), source=DATA_VARIABLE)
    folders = {key: Path(os.path.expanduser(data[key])).absolute() for key in names_of(name) if key in data}
    if len(set(folders.values())) > 1:
        listed = ", ".join(f"{key}={folder}" for key, folder in folders.items())
        raise DatasetError(f"data names two folders for {shown(name)}: {listed}", fix="Name one.", dataset=name)
    return next(iter(folders.values()), None)


def is_repo_id(name: str) -> bool:
    """Return whether a name is ``<owner>/<name>`` of the Hub, without a revision, a path or a pattern."""
    return _REPO_ID.fullmatch(name) is not None


def check_fetched(name: str, data: Mapping[str, str | os.PathLike[str]], *, asked_by: str) -> None:
    """Check that a record alone does not make vitzoo download a data set; ``asked_by`` names the record's owner.

    Raises:
        DatasetError: ``data`` does not name the data set's folder, and the Hub's data set is not one of `KNOWN`.
    """
    folder = find_folder(name, {key: Path(folder) for key, folder in data.items()})
    if folder is None and find_known(name) is None and is_repo_id(name):
        raise DatasetError(
            f"{asked_by} asks for the data set {shown(name)}, which vitzoo does not know",
            expected="a known one, since a record alone downloads nothing else",
            fix=f"If you trust it, run: hf download {name} --repo-type dataset --local-dir ./folder. Then name the "
            f"folder: {_name_folder(name)}.",
            dataset=name,
        )


def parse_data(options: Iterable[str], *, source: str = "--data") -> dict[str, Path]:
    """Parse ``NAME=FOLDER`` texts into folders by name.

    Args:
        options: The texts.
        source: Where they come from, for errors: the option ``--data``, or ``VITZOO_DATA``.

    Raises:
        DatasetError: A text has another form, or a name is given twice.
    """
    data: dict[str, Path] = {}
    for option in options:
        name, _, folder = option.partition("=")
        if not name or not folder:
            raise DatasetError(
                f"{source} has {shown(option)}",
                expected="NAME=FOLDER, such as cifar100=./cifar100",
                dataset=name or None,
            )
        if name in data:
            raise DatasetError(
                f"{source} names two folders for {shown(name)}: {data[name]} and {folder}",
                fix="Name one.",
                dataset=name,
            )
        data[name] = Path(folder)
    return data


def check_data(data: Mapping[str, Path], used: Iterable[str | None]) -> None:
    """Check that ``data`` names existing folders of data sets that are used, so that no misspelling is ignored.

    Raises:
        DatasetError: A name is not one of theirs, a data set has two folders, or a folder does not exist.
    """
    datasets = tuple(dict.fromkeys(name for name in used if name is not None))
    names = [name for dataset in datasets for name in names_of(dataset)]
    for name in data:
        if name not in names:
            raise DatasetError(
                f"data names a folder for {shown(name)}",
                expected="a data set that is used here",
                fix=did_you_mean(name, names).strip() or None,
                dataset=name,
            )
    for name in datasets:
        folder = find_folder(name, data)
        if folder is not None:
            check_folder(name, folder)


def check_folder(name: str, folder: Path) -> None:
    """Check that the folder of a data set exists.

    Raises:
        DatasetError: It does not exist, or is a file.
    """
    if folder.is_dir() or (folder.is_file() and name in SNIPPETS):
        return
    place = f"{printable(str(folder))}, which data names for {shown(name)},"
    if folder.exists():
        raise DatasetError(
            f"{place} is a file",
            expected=f"a folder: {_layouts(name)}",
            fix="Name the folder of the file, or unpack it.",
            dataset=name,
        )
    raise DatasetError(f"{place} does not exist", fix=how_to_get(name), dataset=name)


def how_to_get(name: str) -> str:
    """Return the fix of an error: the download of a data set, and how to name the folder of a copy."""
    known = find_known(name)
    download = "" if known is None else f" ({known.download})"
    return (
        f"Get it once with a connection{download}, or name a folder that has it: {_name_folder(name)}. The "
        f"folder may have {_layouts(name)}."
    )


def _layouts(name: str) -> str:
    """Return the layouts that the folder of a data set may have."""
    known = find_known(name)
    if known is None:
        return f"for images {LAYOUTS}; for texts {TEXT_LAYOUTS}"
    return LAYOUTS if isinstance(known.spec, DatasetSpec) else TEXT_LAYOUTS


def _name_folder(name: str) -> str:
    short = names_of(name)[-1]
    return f'--data {short}=./folder in a shell, data={{"{short}": "./folder"}} in Python'
