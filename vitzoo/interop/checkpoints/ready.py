"""Tables of published populations, by name. Their weights are on the Hub, and this module has their places alone.

    multiberts   25 BERTs that differ in their seed; 28 checkpoints of the training of five
    model-j      google/vit-base-patch16-224 and ViTs that were fine-tuned from it

Sources: Sellam et al. 2022, The MultiBERTs (arXiv 2106.16163), and the cards of ``google/multiberts-seed_0``; Horwitz
et al. 2025, Learning on Model Weights using Tree Experts (arXiv 2410.13569), whose models are ``ProbeX/Model-J__*``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitzoo.interop.checkpoints.table import Table, load_table, parse_rows

_SEEDS, _FOLLOWED = 25, 5
_LAST = 2_000_000  # steps
_STEPS = (*range(20_000, 200_001, 20_000), *range(300_000, _LAST + 1, 100_000))
_FOUNDATION = "google/vit-base-patch16-224"
_MODEL_J = 1000


def multiberts() -> list[dict[str, Any]]:
    """Return the rows of the MultiBERTs. Steps are numbers; the last step of a followed seed is its final model."""
    rows = []
    for seed in range(_SEEDS):
        common = {"member": f"seed_{seed}", "init_seed": seed, "objective": "masked"}
        for step in _STEPS if seed < _FOLLOWED else ():
            place = f"google/multiberts-seed_{seed}-step_{step // 1000}k"
            rows.append({"location": place, "step": step, **common})
        if seed >= _FOLLOWED:
            rows.append({"location": f"google/multiberts-seed_{seed}", "step": _LAST, **common})
    return rows


def model_j() -> list[dict[str, Any]]:
    """Return the rows of the supervised ViTs of Model-J, under their parent. Repos that are gone are left out."""
    rows: list[dict[str, Any]] = [{"location": _FOUNDATION, "member": _FOUNDATION}]
    for number in range(_MODEL_J):
        name = f"Model-J__SupViT__model_idx_{number:04d}"
        rows.append({"location": f"ProbeX/{name}", "member": name, "parent": _FOUNDATION})
    return rows


NAMES: dict[str, Callable[[], list[dict[str, Any]]]] = {"multiberts": multiberts, "model-j": model_j}


def open_table(path: Path) -> Table:
    """Return a ready table by its name, or read one."""
    name = str(path)
    return parse_rows(NAMES[name](), where=name) if name in NAMES and not path.exists() else load_table(path)
