"""How long a ViT-S/16 member takes to load, beside the floor and beside a pickle: ``make bench``.

The floor is what any loader must do to give a fresh module: construct it without storage or initialisation, map the
safetensors file, and hand the tensors over. All rows are timed in turn in one process, page cache warm; a ratio is of
medians, to the floor's.
"""

import gc
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import ViTForImageClassification
from transformers.initialization import no_init_weights
from transformers.utils.logging import disable_progress_bar

from tests.benchmarks.synthetic_zoo import write_synthetic_zoo
from vitzoo import VitZooConfig, VitZooModel
from vitzoo.architectures import memory_name

ROUNDS = 25
FLOOR = "floor: safetensors + meta device + assign"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        zoo = Path(temporary) / "zoo"
        write_synthetic_zoo(zoo, members=1)
        folder, pickle = zoo / "pt-0", Path(temporary) / "checkpoint"
        torch.save(load_file(folder / "model.safetensors"), pickle)
        rows = _rows(folder, pickle)
        times = {name: [] for name in rows}
        for turn in range(ROUNDS + 3):
            for name, load in rows.items():
                gc.collect()
                started = time.perf_counter()
                kept = load()
                seconds = time.perf_counter() - started
                del kept
                if turn >= 3:  # warm-up
                    times[name].append(1000 * seconds)
    _print_table(times)


def _rows(folder: Path, pickle: Path) -> dict[str, Callable[[], object]]:
    config = VitZooConfig.from_pretrained(folder)

    def floor() -> VitZooModel:
        tensors = {memory_name(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        return _assigned(config, tensors)

    def pickled() -> VitZooModel:
        tensors = torch.load(pickle, weights_only=True)
        return _assigned(config, {memory_name(name): tensor for name, tensor in tensors.items()})

    return {
        FLOOR: floor,
        "VitZooModel.from_pretrained": lambda: VitZooModel.from_pretrained(folder),
        "VitZooModel.from_pretrained, verify=True": lambda: VitZooModel.from_pretrained(folder, verify=True),
        "transformers' ViTForImageClassification": lambda: ViTForImageClassification.from_pretrained(folder),
        "torch.load of a pickle + meta device + assign": pickled,
        "torch.load of a pickle alone": lambda: torch.load(pickle, weights_only=True),
        "safetensors' load_file alone": lambda: load_file(folder / "model.safetensors"),
    }


def _assigned(config: VitZooConfig, tensors: dict[str, torch.Tensor]) -> VitZooModel:
    with torch.device("meta"), no_init_weights():
        model = VitZooModel(config)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _print_table(times: dict[str, list[float]]) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "safetensors"))
    print(f"One ViT-S/16 member of 86.8 MB, {ROUNDS} rounds, one thread, {platform.machine()}, {packages}\n")
    print("| loading | median ms | min ms | to the floor |\n|---|---|---|---|")
    floor = statistics.median(times[FLOOR])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.1f} | {min(values):.1f} | {median / floor:.2f} |")


if __name__ == "__main__":
    main()
