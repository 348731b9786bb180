"""Speed of importing a table of ViT-S/16 checkpoints, compared with a plain copy with one sha256.

    python -m tests.benchmarks.import_checkpoints [CHECKPOINTS]     .26 GB of disk each, 20 by default

Ten checkpoints are a member, of its steps 0 to 900; every other member is pickles. The copy is the one of
`tests.benchmarks.import_release`. Both process the same files in turn, page cache warm. Ratios are of medians. Peak
memory is that of a process of its own, mapped pages of files included.
"""

import csv
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import ViTConfig, ViTForImageClassification

from tests.benchmarks.import_release import JOBS, copy_all, measure_peak
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.run import import_checkpoints

ROUNDS, PER_MEMBER = 3, 10
VIT_S = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = _write(folder, count)
        files = [path for path in (folder / "source").rglob("*") if path.suffix in (".safetensors", ".bin")]
        size = sum(path.stat().st_size for path in files)
        seconds: dict[str, list[float]] = {}
        for turn in range(ROUNDS + 1):
            for name, work in (
                ("plain copy, sha256 once", lambda: copy_all(files, folder / "copy", digests=1)),
                ("import", lambda: _import(table, folder / "zoo", link=False)),
                ("import --link", lambda: _import(table, folder / "zoo", link=True)),
            ):
                took = work()
                if turn:  # the first is a warm-up
                    seconds.setdefault(name, []).append(took)
                for made in ("copy", "zoo"):
                    shutil.rmtree(folder / made, ignore_errors=True)
        peak = measure_peak(["import", "checkpoints", str(table), str(folder / "zoo")])
    print(f"{len(files)} checkpoints, {size / 1e9:.2f} GB, {JOBS} jobs; {platform.machine()}, median of {ROUNDS}")
    floor = statistics.median(seconds["plain copy, sha256 once"])
    for name, took in seconds.items():
        median = statistics.median(took)
        print(f"{name:24} {median:6.2f} s [{min(took):.2f}, {max(took):.2f}]  {size / median / 1e6:6.0f} MB/s  "
              f"{floor / median:.2f} of the plain copy")  # fmt: skip
    print(f"peak memory of the import's process: {peak / 1e6:.0f} MB")


def _write(folder: Path, count: int) -> Path:
    """Write checkpoints and their table."""
    config: Any = {**VIT_S, "num_labels": 100}
    model = ViTForImageClassification(ViTConfig(**config))
    table = folder / "t.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["location", "member", "step", "learning_rate"])
        for number in range(count):
            member, step = divmod(number, PER_MEMBER)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_(std=0.02)
            place = folder / f"source/{member}/checkpoint-{step}"
            if member % 2:
                place.mkdir(parents=True)
                model.config.save_pretrained(place)
                torch.save(model.state_dict(), place / "pytorch_model.bin")
            else:
                model.save_pretrained(place)
            writer.writerow([f"source/{member}/checkpoint-{step}", f"run-{member}", 100 * step, 0.001])
    return table


def _import(table: Path, zoo: Path, *, link: bool) -> float:
    started = time.perf_counter()
    report = import_checkpoints(Import(table=table, root=zoo, jobs=JOBS, link=link))
    took = time.perf_counter() - started
    if report.skipped:
        raise SystemExit(f"not everything was imported: {report.skipped}")
    return took


if __name__ == "__main__":
    main()
