"""A population read as data, beside plain reads of the same bytes: ``make bench``, its second part.

    python -m tests.benchmarks.population [ZOO]

Without a zoo, 40 synthetic ViT-S/16 members (3.5 GB) are written to a temporary folder first. The rows of a table are
timed in turn in one process, page cache warm; a ratio is of medians. Peak memory is of processes of their own.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from safetensors import safe_open
from transformers.utils.logging import disable_progress_bar

from tests.benchmarks.synthetic_zoo import write_synthetic_zoo
from vitzoo import VitZooModel, Zoo
from vitzoo.tensors.header import load_header
from vitzoo.weights.population import PopulationWeights

ROUNDS = 7
MEMBERS = 40
TENSOR = "vit.encoder.layer.3.intermediate.dense.weight"
Rows = dict[str, Callable[[], object]]


def main(zoo: Annotated[Path | None, typer.Argument(help="A synthetic zoo that is there already.")] = None) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        if zoo is None:
            zoo = Path(temporary) / "zoo"
            Console(stderr=True).print(f"Writing {MEMBERS} members of 87 MB to {zoo} ...")
            write_synthetic_zoo(zoo, members=MEMBERS)
        _print_tables(zoo)


def _print_tables(zoo: Path) -> None:
    weights = Zoo(zoo).weights()
    files = [zoo / str(ref.member) / "model.safetensors" for ref in weights.refs]
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "transformers", "safetensors"))
    print(f"{len(files)} ViT-S/16 members, {ROUNDS} rounds, {os.cpu_count()} cores, {platform.machine()}, {packages}")
    matrix = np.zeros((len(files), weights.index().size), np.float32)  # every page is there before it is read into
    _print_table("Backbones as one matrix", matrix.nbytes, _time(_matrix_rows(zoo, files, matrix)))
    _print_table("One tensor of every member", len(files) * 1536 * 384 * 4, _time(_tensor_rows(zoo, files)))
    _print_table("Models one after the other", sum(file.stat().st_size for file in files), _time(_model_rows(zoo)))
    _print_table("Distances between all backbones", matrix.nbytes, _time(_distance_rows(zoo, files, matrix)))
    del matrix
    _print_memory(zoo, len(files))
    _print_imports(zoo)


def _open(zoo: Path) -> PopulationWeights:
    return Zoo(zoo).weights()  # headers are read anew


def _preadv(files: list[Path], out: np.ndarray) -> np.ndarray:
    """The backbones' bytes, which lie together at the end of each file, as they are."""
    for file, row in zip(files, out, strict=True):
        with open(file, "rb", buffering=0) as opened:
            start = os.fstat(opened.fileno()).st_size - row.nbytes
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
    entry = load_header(files[0])[TENSOR]
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
                    found.append(opened.get_tensor(TENSOR))
            return stack(found)

        return read

    weights = _open(zoo)
    return {
        "preadv of the same bytes into a warm buffer": floor,
        "tensor(name, out=...)": lambda: weights.tensor(TENSOR, out=warm),
        "tensor(name)": lambda: weights.tensor(TENSOR),
        "safe_open, numpy": plain("numpy", np.stack),
        "safe_open, torch": plain("pt", torch.stack),
    }


def _model_rows(zoo: Path) -> Rows:
    ids = [str(member.id) for member in Zoo(zoo)]

    def looked_at(model: torch.nn.Module) -> float:
        return sum(float(parameter.detach().sum()) for parameter in model.parameters())

    return {
        "from_pretrained": lambda: [VitZooModel.from_pretrained(f"{zoo}/{member}") for member in ids] and None,
        "iter_models()": lambda: [None for _ in _open(zoo).iter_models()],
        "from_pretrained, every weight looked at": lambda: [
            looked_at(VitZooModel.from_pretrained(f"{zoo}/{member}")) for member in ids
        ],
        "iter_models(), every weight looked at": lambda: [looked_at(model) for _, model in _open(zoo).iter_models()],
    }


def _distance_rows(zoo: Path, files: list[Path], matrix: np.ndarray) -> Rows:
    width = 2**20 // len(files)

    def product(dtype: type) -> None:
        """The Gram matrix of what memory holds: in pieces that the cache holds, or it would be slower."""
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
    }


def _time(rows: Rows) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(ROUNDS + 1):
        for name, read in rows.items():
            started = time.perf_counter()
            kept = read()
            seconds = time.perf_counter() - started
            del kept
            if turn:  # the first warms up
                times[name].append(seconds)
    return times


def _print_table(title: str, size: int, times: dict[str, list[float]]) -> None:
    print(f"\n{title} ({size / 1e9:.2f} GB)\n\n| | median ms | min ms | GB/s | to the first |\n|---|---|---|---|---|")
    first = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        median = statistics.median(values)
        rate = size / median / 1e9
        print(f"| {name} | {1e3 * median:.1f} | {1e3 * min(values):.1f} | {rate:.2f} | {median / first:.2f} |")


_STREAMS = {
    "nothing but the imports": "",
    "iter_vectors()": "for _ in weights.iter_vectors(): pass",
    "distances()": "weights.distances()",
    "iter_models(), every weight looked at": (
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


def _print_imports(zoo: Path) -> None:
    programs = {
        "python alone": "",
        "import vitzoo": "import vitzoo",
        "from vitzoo import Zoo": "from vitzoo import Zoo",
        "Zoo(...).select(...)": "import sys; from vitzoo import Zoo; Zoo(sys.argv[1]).select(head_type='linear')",
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(15):
        for name, program in programs.items():
            started = time.perf_counter()
            _run(program, str(zoo))
            times[name].append(time.perf_counter() - started)
    print("\nWhole processes\n\n| | median ms | above python alone |\n|---|---|---|")
    alone = statistics.median(times["python alone"])
    for name, values in times.items():
        print(f"| {name} | {1e3 * statistics.median(values):.0f} | {1e3 * (statistics.median(values) - alone):.0f} |")


def _run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


if __name__ == "__main__":
    typer.run(main)
