"""Time of reading a population as data, compared with plain reads of the same bytes: second part of ``make bench``.

    python -m tests.benchmarks.population [ZOO] [--kind bert] [--members 10]

Without a zoo, 40 synthetic ViT-S/16 members (3.5 GB), or masked BERTs of as many bytes, are written to a temporary
folder first. The rows of a table are timed in turn in one process, page cache warm; a ratio is of medians. Peak memory
is of processes of their own.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from safetensors import safe_open
from transformers.utils.logging import disable_progress_bar

from tests.benchmarks.synthetic_zoo import Kind, write_synthetic_zoo
from tests.benchmarks.timing import Rows, measure, print_times, versions
from vitzoo import Zoo, ZooModel
from vitzoo.analysis.lineage.ancestry import measure as measure_backbones
from vitzoo.architectures import is_head
from vitzoo.tensors.header import load_header
from vitzoo.weights.population import PopulationWeights

ROUNDS = 7
TENSOR = "encoder.layer.3.intermediate.dense.weight"


def main(
    zoo: Annotated[Path | None, typer.Argument(help="An existing synthetic zoo.")] = None,
    kind: Annotated[Kind, typer.Option(help="Architecture of the members that are written.")] = "vit",
    members: Annotated[int, typer.Option(min=4, help="Number of members that are written.")] = 40,
) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        if zoo is None:
            zoo = Path(temporary) / "zoo"
            Console(stderr=True).print(f"Writing {members} members of 87 MB to {zoo} ...")
            write_synthetic_zoo(zoo, members=members, kind=kind)
        _print_tables(zoo)


def _print_tables(zoo: Path) -> None:
    weights = Zoo(zoo).weights()
    files = [zoo / str(ref.member) / "model.safetensors" for ref in weights.refs]
    packages = versions("numpy", "torch", "transformers", "safetensors")
    kind = Zoo(zoo)["pt-0"].load().config.model_type
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    print(f"{len(files)} members of model_type {kind}, {ROUNDS} rounds, {machine}, {packages}")
    matrix = np.zeros((len(files), weights.index().size), np.float32)  # writes every page before the reads
    _print_table("Backbones as one matrix", matrix.nbytes, _matrix_rows(zoo, files, matrix))
    _print_table("One tensor of every member", len(files) * 1536 * 384 * 4, _tensor_rows(zoo, files))
    _print_table("Models one after the other", sum(file.stat().st_size for file in files), _model_rows(zoo))
    _print_table("Distances between all backbones", matrix.nbytes, _distance_rows(zoo, files, matrix))
    del matrix
    _print_memory(zoo, len(files))


def _open(zoo: Path) -> PopulationWeights:
    return Zoo(zoo).weights()  # without known headers


def _preadv(files: list[Path], out: np.ndarray) -> np.ndarray:
    """Read the bytes of the backbones, which are together in each file."""
    start = min(entry.start for name, entry in load_header(files[0]).items() if not is_head(name))
    for file, row in zip(files, out, strict=True):
        with open(file, "rb", buffering=0) as opened:
            if os.preadv(opened.fileno(), [row], start) != row.nbytes:
                raise OSError("a read stopped short")
    return out


def _matrix_rows(zoo: Path, files: list[Path], matrix: np.ndarray) -> Rows:
    names = list(_open(zoo).index())
    spans = [entry.span for entry in _open(zoo).index().values()]

    def stacked() -> np.ndarray:
        rows = []
        for file in files:
            with safe_open(file, "numpy") as opened:
                rows.append(np.concatenate([opened.get_tensor(name).ravel() for name in names]))
        return np.stack(rows)

    def filled() -> np.ndarray:
        for file, row in zip(files, matrix, strict=True):
            with safe_open(file, "numpy") as opened:
                for name, span in zip(names, spans, strict=True):
                    row[span] = opened.get_tensor(name).ravel()
        return matrix

    return {
        "preadv of the same bytes into a warm buffer": lambda: _preadv(files, matrix),
        "matrix(out=...), into the same buffer": lambda: _open(zoo).matrix(out=matrix),
        "matrix()": lambda: _open(zoo).matrix(),
        "preadv into a new buffer": lambda: _preadv(files, np.empty_like(matrix)),
        "safe_open, concatenated and stacked": stacked,
        "safe_open, into the same buffer": filled,
    }


def _tensor_rows(zoo: Path, files: list[Path]) -> Rows:
    name, entry = next(item for item in load_header(files[0]).items() if item[0].endswith(TENSOR))
    warm = np.zeros((len(files), *entry.shape), np.float32)

    def floor() -> None:
        for file, row in zip(files, warm, strict=True):
            with open(file, "rb", buffering=0) as opened:
                os.preadv(opened.fileno(), [row], entry.start)

    def plain(framework: str, stack: Callable[[list], object]) -> Callable[[], object]:
        def read() -> object:
            found = []
            for file in files:
                with safe_open(file, framework) as opened:
                    found.append(opened.get_tensor(name))
            return stack(found)

        return read

    weights = _open(zoo)
    return {
        "preadv of the same bytes into a warm buffer": floor,
        "tensor(name, out=...)": lambda: weights.tensor(name, out=warm),
        "tensor(name)": lambda: weights.tensor(name),
        "safe_open, numpy": plain("numpy", np.stack),
        "safe_open, torch": plain("pt", torch.stack),
    }


def _model_rows(zoo: Path) -> Rows:
    ids = [str(member.id) for member in Zoo(zoo)]

    def summed(model: torch.nn.Module) -> float:
        return sum(float(parameter.detach().sum()) for parameter in model.parameters())

    return {
        "from_pretrained": lambda: [ZooModel.from_pretrained(f"{zoo}/{member}") for member in ids] and None,
        "iter_models()": lambda: [None for _ in _open(zoo).iter_models()],
        "from_pretrained, every weight summed": lambda: [
            summed(ZooModel.from_pretrained(f"{zoo}/{member}")) for member in ids
        ],
        "iter_models(), every weight summed": lambda: [summed(model) for _, model in _open(zoo).iter_models()],
    }


def _distance_rows(zoo: Path, files: list[Path], matrix: np.ndarray) -> Rows:
    width = 2**20 // len(files)

    def product(dtype: type) -> None:
        """Compute the Gram matrix in slices that fit the cache."""
        piece, gram = np.empty((len(files), width), dtype), np.zeros((len(files), len(files)), dtype)
        for start in range(0, matrix.shape[1] - width, width):
            piece[:] = matrix[:, start : start + width]
            gram += piece @ piece.T

    return {
        "preadv and the product in float64": lambda: (_preadv(files, matrix), product(np.float64)),
        "preadv and the product in float32": lambda: (_preadv(files, matrix), product(np.float32)),
        'distances("l2")': lambda: _open(zoo).distances("l2"),
        'distances("cosine")': lambda: _open(zoo).distances("cosine"),
        'distances("l2", by="tensor")': lambda: _open(zoo).distances("l2", by="tensor"),
        "distances and root signals of lineage": lambda: measure_backbones(_open(zoo)),
    }


def _print_table(title: str, size: int, rows: Rows) -> None:
    print(f"\n{title} ({size / 1e9:.2f} GB)\n")
    print_times(measure(rows, rounds=ROUNDS), size=size)


_STREAMS = {
    "nothing but the imports": "",
    "iter_vectors()": "for _ in weights.iter_vectors(): pass",
    "distances()": "weights.distances()",
    "iter_models(), every weight summed": (
        "for _, model in weights.iter_models(): [float(parameter.detach().sum()) for parameter in model.parameters()]"
    ),
    "WeightsDataset, tokens, batches of 1": (
        "import torch.utils.data\n"
        "from vitzoo.weights.learning.dataset import WeightsDataset\n"
        "for _ in torch.utils.data.DataLoader(WeightsDataset(weights, 'tokens', token_size=385)): pass"
    ),
}


def _print_memory(zoo: Path, members: int) -> None:
    counts = (members // 4, members)
    print(f"\nPeak memory, MB\n\n| | {counts[0]} members | {counts[1]} members |\n|---|---|---|")
    for name, code in _STREAMS.items():
        program = (
            "import re\nimport sys\nfrom vitzoo import Zoo\n"
            "weights = Zoo(sys.argv[1]).weights()[: int(sys.argv[2])]\n"
            f"{code}\nprint(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
        )
        peaks = [_run(program, str(zoo), str(count)) for count in counts]
        print(f"| {name} | {' | '.join(f'{int(peak) / 1024:.0f}' for peak in peaks)} |")


def _run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


if __name__ == "__main__":
    typer.run(main)
