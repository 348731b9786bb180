"""``vitzoo export``: a member as a folder for timm or onnxruntime."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from filelock import FileLock

from vitzoo.architectures import Architecture, find_architecture, load_config_json
from vitzoo.cli.console import make_console
from vitzoo.cli.display import escape
from vitzoo.cli.options import MemberArgument, RevisionOption, open_member
from vitzoo.errors import ConflictingArgumentsError, DownloadError, VitZooError
from vitzoo.interop.preflight import check_onnx_packages, check_timm_architecture, check_timm_head
from vitzoo.records import layout
from vitzoo.zoo.member import Member

if TYPE_CHECKING:
    from vitzoo.models.loading import MemberModel
    from vitzoo.models.vit import VitZooModel

T = TypeVar("T")
_LOCK = "lock"
_OUT = typer.Argument(help="A folder that does not exist yet, or is empty.")


def export(
    name: MemberArgument,
    out: Annotated[Path, _OUT],
    *,
    to: Annotated[Literal["timm", "onnx"], typer.Option(help="The library that the folder is for.")],
    revision: RevisionOption = None,
) -> None:
    """Write a member, at any epoch, as a folder for timm or onnxruntime. It appears whole or not at all."""
    from vitzoo.hub_http import quiet

    with quiet():
        ref, member = open_member(name, revision=revision)
        check_free(out)
        # These refuse before torch is imported.
        if to == "onnx":
            check_onnx_packages()
        else:
            check_timm_architecture(_architecture(member).backbone)
            check_timm_head(member.record.head_width)
        member.catalogue.member_files(ref)
        model = member.load(epoch=ref.epoch)
        write = _write_timm if to == "timm" else _write_onnx
        lines = write_folder(out, lambda folder: write(model, member, folder))
    console = make_console(soft_wrap=True, highlight=False)
    console.print(f"{escape(str(ref))} is in {escape(str(out))}: {escape(', '.join(sorted(os.listdir(out))))}")
    for line in lines:
        console.print(escape(line.replace("OUT", str(out))))


def write_folder(out: Path, fill: Callable[[Path], T]) -> T:
    """Make a folder that appears at once, with the files that ``fill`` writes, and return the value of ``fill``."""
    check_free(out)
    out = Path(os.path.realpath(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        with (
            tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as partial,
            FileLock(Path(partial) / _LOCK),
        ):
            folder = Path(partial) / "out"  # with the usual permissions, unlike a temporary folder
            folder.mkdir()
            value = fill(folder)
            os.rename(folder, out)  # replaces an empty folder
    except VitZooError:  # some are OSErrors too
        raise
    except OSError as error:
        raise DownloadError(f"{out} cannot be written: {error}", fix="Name another folder.", path=out) from error
    return value


def _remove_abandoned(out: Path) -> None:
    """Delete the temporary folders of killed exports to the same place. A living export locks its own."""
    for partial in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        with contextlib.suppress(OSError):  # a Timeout, of a living export, is one
            if not partial.is_symlink():
                with FileLock(partial / _LOCK, timeout=0):
                    shutil.rmtree(partial)


def check_free(out: Path) -> None:
    """Raise ConflictingArgumentsError if something exists at a place, except for an empty folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise ConflictingArgumentsError(
            f"{out} {'has files already' if out.is_dir() else 'is not a folder'}, and nothing is overwritten",
            fix="Name a folder that does not exist yet, or remove this one.",
        )


def _write_timm(model: "VitZooModel", member: Member, folder: Path) -> list[str]:
    from vitzoo.interop.timm_folder import write_timm_folder

    write_timm_folder(model, folder, processor=member.load_processor_json())
    return ['Load it: timm.create_model("local-dir:OUT", pretrained=True)']


def _write_onnx(model: "MemberModel", member: Member, folder: Path) -> list[str]:
    from vitzoo.interop.onnx import OPSET, export_onnx

    modality = member.modality
    if modality == "images" and member.catalogue.processor_files(member.id):
        member.load_processor_json()  # refuses a damaged one
    for relative in (layout.config_file(member.id), *member.catalogue.processor_files(member.id)):
        shutil.copyfile(member.catalogue.source.path(relative), folder / relative.name)
    difference = export_onnx(model.float(), folder / "model.onnx")
    inputs = '{"pixel_values": images}' if modality == "images" else '{"input_ids": ids, "attention_mask": mask}'
    sizes = "any batch size" if modality == "images" else "any batch size and length"
    return [
        f"Opset {OPSET}, {sizes}; the largest difference of a logit from torch's is {difference:.1e}.",
        f'Load it: onnxruntime.InferenceSession("OUT/model.onnx").run(["logits"], {inputs})',
    ]


def _architecture(member: Member) -> Architecture:
    config = load_config_json(member.catalogue.source.path(layout.config_file(member.id)))
    return find_architecture(config["model_type"])
