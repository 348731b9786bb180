"""``vitzoo export``: a member as a folder that timm or onnxruntime reads."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console

from vitzoo.architectures import load_config_json
from vitzoo.cli.display import escape
from vitzoo.cli.options import MemberArgument, RevisionOption
from vitzoo.errors import ConflictingArgumentsError, DownloadError, VitZooError
from vitzoo.ids import MemberId, MemberRef
from vitzoo.images.processor import load_processor_json
from vitzoo.records import layout
from vitzoo.sources.locate import locate, open_source
from vitzoo.sources.source import HubOptions, ZooSource

if TYPE_CHECKING:
    from vitzoo.models.vit import VitZooModel

T = TypeVar("T")
_OUT = typer.Argument(help="A folder that does not exist yet, or is empty.")


def export(
    member: MemberArgument,
    out: Annotated[Path, _OUT],
    *,
    to: Annotated[Literal["timm", "onnx"], typer.Option(help="What shall read it.")],
    revision: RevisionOption = None,
) -> None:
    """Write a member, at any epoch, as a folder that timm or onnxruntime reads; it appears whole or not at all."""
    options = HubOptions(revision=revision)
    located = locate(member, options=options)
    # What is no member's is an error here.
    ref, source = located or (MemberRef.parse(member), open_source(options=options))
    _check_free(out)
    from vitzoo.hub_http import quiet
    from vitzoo.zoo.zoo import Zoo

    with quiet():
        chosen = Zoo.of(source)[ref.member]
        chosen.catalogue.member_files(ref)  # refuses before torch is imported
        model = chosen.load(epoch=ref.epoch)
        write = _write_timm if to == "timm" else _write_onnx
        said = write_folder(out, lambda folder: write(model, source, ref.member, folder))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{escape(str(ref))} is in {escape(str(out))}: {escape(', '.join(sorted(os.listdir(out))))}")
    for line in said:
        console.print(escape(line.replace("OUT", str(out))))


def write_folder(out: Path, fill: Callable[[Path], T]) -> T:
    """Make a folder that appears, with all its files, at once.

    Args:
        out: The folder; it does not exist, or is empty.
        fill: Writes the files into a folder beside it.

    Returns:
        What ``fill`` returned.

    Raises:
        ConflictingArgumentsError: There are files already.
        DownloadError: It cannot be written.
    """
    _check_free(out)
    out = Path(os.path.realpath(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as partial:
            folder = Path(partial) / "out"  # with the rights of any new folder, not those of a temporary one
            folder.mkdir()
            said = fill(folder)
            os.rename(folder, out)  # onto nothing, or onto an empty folder
    except VitZooError:  # some of which are errors of the operating system too
        raise
    except OSError as error:
        raise DownloadError(f"{out} cannot be written: {error}.", path=out) from error
    return said


def _check_free(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        what = "holds files already" if out.is_dir() else "is no folder"
        raise ConflictingArgumentsError(
            f"{out} {what}, and nothing is overwritten",
            fix="Name a folder that does not exist yet, or remove this one.",
        )


def _write_timm(model: "VitZooModel", source: ZooSource, member: MemberId, folder: Path) -> list[str]:
    from vitzoo.interop.timm_folder import write_timm_folder

    write_timm_folder(model, folder, processor=_load_processor(source, member))
    return ['Load it: timm.create_model("local-dir:OUT", pretrained=True)']


def _write_onnx(model: "VitZooModel", source: ZooSource, member: MemberId, folder: Path) -> list[str]:
    from vitzoo.interop.onnx import OPSET, export_onnx

    _load_processor(source, member)
    for copied in (layout.config_file(member), layout.image_processor_file(member)):
        shutil.copyfile(source.path(copied), folder / copied.name)
    difference = export_onnx(model.float(), folder / "model.onnx")
    return [
        f"Opset {OPSET}, any batch size; the largest difference of a logit from torch's is {difference:.1e}.",
        'Load it: onnxruntime.InferenceSession("OUT/model.onnx").run(["logits"], {"pixel_values": images})',
    ]


def _load_processor(source: ZooSource, member: MemberId) -> dict[str, Any]:
    model = load_config_json(source.path(layout.config_file(member)))
    return load_processor_json(source.path(layout.image_processor_file(member)), model=model)
