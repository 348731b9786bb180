"""Time of loading a ViT-S/16 member, compared with the floor, a pickle and a BERT of as many bytes: ``make bench``.

The floor is the work of any loader of a new module: construct it without storage or initialisation, map the safetensors
file, and assign the tensors. All rows are timed in turn in one process, page cache warm. Ratios are of medians.
"""

import platform
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BertForMaskedLM, ViTForImageClassification
from transformers.initialization import no_init_weights
from transformers.utils.logging import disable_progress_bar

from tests.benchmarks.synthetic_zoo import write_synthetic_zoo
from tests.benchmarks.timing import Rows, measure, print_times, versions
from vitzoo import VitZooConfig, VitZooModel, ZooModel
from vitzoo.architectures import memory_name

ROUNDS = 25


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        zoo = Path(temporary) / "zoo"
        write_synthetic_zoo(zoo, members=1)
        folder, pickle = zoo / "pt-0", Path(temporary) / "checkpoint"
        torch.save(load_file(folder / "model.safetensors"), pickle)
        times = measure(_rows(folder, pickle), rounds=ROUNDS, warm_up=3)
        write_synthetic_zoo(Path(temporary) / "berts", members=1, kind="bert")
        by_kind = measure(_rows_by_kind(folder, Path(temporary) / "berts/pt-0"), rounds=ROUNDS, warm_up=3)
    packages = versions("torch", "transformers", "safetensors")
    print(f"One ViT-S/16 member of 86.8 MB, {ROUNDS} rounds, one thread, {platform.machine()}, {packages}\n")
    print_times(times, size=86_800_000)
    print("\nA masked BERT of 6 blocks and 86.8 MB, beside the ViT\n")
    print_times(by_kind, size=86_800_000)


def _rows(folder: Path, pickle: Path) -> Rows:
    config = VitZooConfig.from_pretrained(folder)

    def floor() -> VitZooModel:
        tensors = {memory_name(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        return _assigned(config, tensors)

    def pickled() -> VitZooModel:
        tensors = torch.load(pickle, weights_only=True)
        return _assigned(config, {memory_name(name): tensor for name, tensor in tensors.items()})

    return {
        "floor: safetensors + meta device + assign": floor,
        "VitZooModel.from_pretrained": lambda: VitZooModel.from_pretrained(folder),
        "VitZooModel.from_pretrained, verify=True": lambda: VitZooModel.from_pretrained(folder, verify=True),
        "transformers' ViTForImageClassification": lambda: ViTForImageClassification.from_pretrained(folder),
        "torch.load of a pickle + meta device + assign": pickled,
        "torch.load of a pickle alone": lambda: torch.load(pickle, weights_only=True),
        "safetensors' load_file alone": lambda: load_file(folder / "model.safetensors"),
    }


def _rows_by_kind(vit: Path, bert: Path) -> Rows:
    return {
        "ViT: ZooModel.from_pretrained": lambda: ZooModel.from_pretrained(vit),
        "BERT: ZooModel.from_pretrained": lambda: ZooModel.from_pretrained(bert),
        "ViT: verify=True": lambda: ZooModel.from_pretrained(vit, verify=True),
        "BERT: verify=True": lambda: ZooModel.from_pretrained(bert, verify=True),
        "BERT: transformers' BertForMaskedLM": lambda: BertForMaskedLM.from_pretrained(bert),
    }


def _assigned(config: VitZooConfig, tensors: dict[str, torch.Tensor]) -> VitZooModel:
    with torch.device("meta"), no_init_weights():
        model = VitZooModel(config)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


if __name__ == "__main__":
    main()
