"""Time of reading the records of a zoo of the paper's size: ``python -m tests.benchmarks.catalogue``.

A folder has the paper's 250 members and 13,150 checkpoints with tiny weights; another one has half of the children.
Times are of whole processes; ``from vitzoo import Zoo`` is the floor. Twice the members should cost at most twice.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from safetensors.torch import save_file

from tests.benchmarks.synthetic_zoo import _epoch_record, _member_values
from training.recipes import load_recipe
from vitzoo import records
from vitzoo.ids import MemberId
from vitzoo.records import json_files, layout
from vitzoo.records.files import file_sha256

PARENTS, ROUNDS = 10, 5
COMMANDS = {
    "from vitzoo import Zoo": ["-c", "from vitzoo import Zoo"],
    "Zoo(...).select(epoch='all')": ["-c", "import sys; from vitzoo import Zoo; Zoo(sys.argv[1]).select(epoch='all')"],
    "vitzoo tree": ["-c", "from vitzoo.cli import main; main()", "tree"],
    "python -m training status": ["-m", "training", "status"],
}


def write_paper_sized_zoo(root: Path, *, children: int) -> None:
    """Write a zoo of the paper's recipe with tiny weights.

    Args:
        root: A new folder.
        children: Children of each of 10 parents; the paper has 24.
    """
    root.mkdir(parents=True)
    recipe = json_files.as_json(load_recipe("paper"))
    zoo = records.ZooRecord(recipe=recipe, recipe_sha256=json_files.json_sha256(recipe))
    json_files.write_json(root / layout.ZOO_JSON, zoo)
    weights = root / "weights.safetensors"
    save_file({"classifier.bias": torch.zeros(4)}, weights, metadata={"format": "pt"})
    final = records.WeightsRecord(epoch=None, size=weights.stat().st_size, sha256=file_sha256(weights))
    for parent in range(PARENTS):
        for member in (MemberId(parent), *(MemberId(parent, child) for child in range(children))):
            _write_member(root, member, weights, final, epochs=90 if member.is_parent else 50)
    weights.unlink()


def _write_member(root: Path, member: MemberId, weights: Path, final: records.WeightsRecord, *, epochs: int) -> None:
    (root / layout.member_folder(member)).mkdir()
    for epoch in (*range(epochs + 1), None):
        (root / layout.weights_file(member, epoch)).hardlink_to(weights)
    values: dict[str, Any] = _member_values(member) | {"epochs": epochs, "num_parameters": 4}
    values |= {"objective": "supervised", "head_role": "classifier", "classes": ("0", "1", "2", "3")}
    if not member.is_parent:
        values |= {"stage": "finetuning", "parent": str(member.parent_id), "parent_epoch": 90}
    saved = (*(structs.replace(final, epoch=epoch) for epoch in range(epochs + 1)), final)
    json_files.write_json(root / layout.member_file(member), records.MemberRecord(**values, weights=saved))
    first = _epoch_record(f"{member}")
    metrics = [structs.replace(first, epoch=epoch, weights_id=f"{member}@{epoch}") for epoch in range(epochs + 1)]
    json_files.write_lines(root / layout.metrics_file(member), metrics)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        zoos = {}
        for children in (12, 24):
            zoos[children] = Path(temporary) / f"{children}"
            write_paper_sized_zoo(zoos[children], children=children)
        print("| whole process | 130 members, s | 250 members, s | ratio | CPU s |\n|---|---|---|---|---|")
        for name, arguments in COMMANDS.items():
            half, whole = (min(_run([*arguments, str(zoo)]) for _ in range(ROUNDS)) for zoo in zoos.values())
            print(f"| {name} | {half[0]:.2f} | {whole[0]:.2f} | {whole[0] / half[0]:.2f} | {whole[1]:.2f} |")


def _run(arguments: list[str]) -> tuple[float, float]:
    """Return the wall and processor seconds of a process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
