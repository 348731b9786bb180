"""Write the report of a zoo into a folder: ``index.html``, which needs no other file, and pictures for other pages.

    write_report(Zoo("zoo"), "report")

See `vitzoo.report.sections` for the content, and `vitzoo.report.page` for the HTML.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

import vitzoo
from vitzoo.data.known import find_folder, find_known
from vitzoo.errors import ConflictingArgumentsError, SelectionError, did_you_mean
from vitzoo.progress import ByteProgress, in_bytes
from vitzoo.records import layout
from vitzoo.records.files import write_atomically
from vitzoo.report.material import Material
from vitzoo.report.page import GENERATOR, draw_png, render_page
from vitzoo.report.sections import OPTIONAL, SECTIONS, make_section
from vitzoo.report.sections.members import members_table
from vitzoo.zoo.zoo import Zoo

_PAGE = "index.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A written report.

    Args:
        path: The page.
        bytes: Its size.
        seconds: Time that it took.
        problems: Sections without pictures, by title, with the reason.
    """

    path: Path
    bytes: int
    seconds: float
    problems: Mapping[str, str]


def write_report(
    zoo: Zoo,
    to: str | PathLike[str],
    *,
    where: str = "",
    tables_only: bool = False,
    include: Sequence[str] = (),
    data: Mapping[str, str | PathLike[str]] | None = None,
    device: str = "cpu",
    pictures: bool = False,
    cache: str | PathLike[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Write the report of a zoo.

    Args:
        zoo: The zoo. The final weights of a Hub zoo's completed members are downloaded, after their size was said.
        to: A folder that is new, empty, or an earlier report, whose page and pictures are replaced.
        where: Conditions on members, as `vitzoo.Zoo.select` takes them.
        tables_only: Whether to read no weights and run no model; sections that need them say so.
        include: Sections that run many models, of `vitzoo.report.sections.OPTIONAL`.
        data: Local folders of data sets by name, as `vitzoo.images.load_images` takes them.
        device: Where models run.
        pictures: Whether to write each picture as a PNG file in ``pictures``, too.
        cache: Folder of the outputs of models; None for the usual one.
        say: Called with lines of progress.

    Raises:
        ConflictingArgumentsError: The folder has other files.
        MissingPackageError: The extra ``report`` is not installed.
        SelectionError: No member meets the conditions, or there is no such section.
    """
    for name in include:
        if name not in OPTIONAL:
            raise SelectionError(f'There is no section "{name}"', fix=did_you_mean(name, OPTIONAL), value=name)
    started, folder = time.monotonic(), Path(to).expanduser()
    check_folder(folder)
    material = Material(
        selection=zoo.select(where, status="any"),
        tables_only=tables_only,
        data=data or {},
        device=device,
        cache=cache,
    )
    if not tables_only:
        if not zoo.catalogue.is_local:
            _download(material, say)
        _announce_data(material, say)
    sections = []
    left_out = [name for name in OPTIONAL if name not in include]
    for title in SECTIONS:
        if title in map(OPTIONAL.get, left_out):
            continue
        before = time.monotonic()
        section = make_section(title, material)
        sections.append(section)
        say(f"{title}: {section.problem or f'{time.monotonic() - before:.1f} s'}")
    page = render_page(
        sections,
        members_table(material),
        name=zoo.source.name if not zoo.catalogue.is_local else zoo.source.root.resolve().name,  # no path of a machine
        summary=_summary(zoo, material),
        footer=f"Made by vitzoo {vitzoo.__version__}. This file is complete: it loads nothing."
        + (f" vitzoo report --with {','.join(left_out)} adds sections that take longer." if left_out else ""),
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections if pictures else ():
        for picture in section.pictures:
            (folder / layout.PICTURES).mkdir(exist_ok=True)
            write_atomically(folder / layout.PICTURES / f"{picture.key}.png", draw_png(picture))
    write_atomically(folder / _PAGE, page)
    return Report(
        path=folder / _PAGE,
        bytes=len(page),
        seconds=time.monotonic() - started,
        problems={section.title: section.problem for section in sections if section.problem},
    )


def check_folder(folder: Path) -> None:
    """Refuse a folder with files that are not an earlier report's.

    Raises:
        ConflictingArgumentsError: It has other files, or is a file.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    page = folder / _PAGE
    if page.is_file() and f'content="{GENERATOR} '.encode() in page.read_bytes()[:2000]:
        return
    if folder.exists() or folder.is_symlink():
        raise ConflictingArgumentsError(
            f"{folder} {'has other files' if folder.is_dir() else 'is not a folder'}",
            expected="a folder that does not exist yet, is empty, or is an earlier report",
            fix="Name another folder.",
        )


def _download(material: Material, say: Callable[[str], None]) -> None:
    """Download the final weights of the members and of their parents, from which moves are measured."""
    catalogue, members = material.selection.catalogue, set(material.completed.ids)
    members |= {member.parent_id for member in members if member.parent_id is not None} & set(catalogue.member_ids)
    from vitzoo.sources.download import find_weights, plan_download, run_download

    planned = plan_download(catalogue.source, find_weights(catalogue.source, members=sorted(members)))
    say(
        f"The final weights and records of {len(members)} members take {in_bytes(planned.bytes)}, "
        f"{in_bytes(planned.missing)} of which are downloaded now. --tables-only needs none of them."
    )
    with ByteProgress("downloading") as progress:
        run_download(planned, report=progress.update)


def _announce_data(material: Material, say: Callable[[str], None]) -> None:
    """Say how large the data set is that models will run on, if it may have to be downloaded."""
    try:
        dataset = material.comparable.members_table.column("dataset")[0].as_py() or ""
    except SelectionError:
        return
    known = find_known(dataset)
    if known is not None and find_folder(dataset, {name: Path(path) for name, path in material.data.items()}) is None:
        say(f"{dataset} is downloaded if it is not in the cache: {known.download}.")


def _summary(zoo: Zoo, material: Material) -> str:
    parents = sum(row["parent"] is None for row in material.rows)
    parameters = np.median([row["num_parameters"] for row in material.rows])
    others = len(zoo) - len(material.rows)
    return (
        f"Recipe {zoo.recipe.get('name', 'custom')}: {parents} parents and {len(material.rows) - parents} children of "
        f"{parameters:,.0f} parameters (median)."
        + (f" {others} other members of the zoo are not in this report." if others else "")
    )
