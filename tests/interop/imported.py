"""Share between tests of the importer: a small data set's sizes, a short release, and comparisons."""

import os
import re
import signal
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.interop.authors_vit import TINY
from tests.interop.release import Release, ReleasedModel, write_release
from tests.interop.release_records import Child, Parent
from vitzoo.architectures.vit import ViTSizes
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.run import import_release
from vitzoo.interop.engine import ImportReport
from vitzoo.records.epochs import Epochs
from vitzoo.verification.verify import verify_zoo
from vitzoo.zoo.zoo import Zoo

MODEL_TYPES = {
    TINY.model_type: ViTSizes(
        image_size=TINY.image,
        patch_size=TINY.patch,
        hidden_size=TINY.hidden,
        num_hidden_layers=TINY.depth,
        num_attention_heads=TINY.hidden // 64,
        intermediate_size=4 * TINY.hidden,
    )
}
SHORT = (
    Parent(
        mode="sl",
        seed=42,
        epochs=2,
        digits=6,
        children=(
            Child(optimizer="adamw", learning_rate=1e-3, epochs=2),
            Child(optimizer="sgd", learning_rate=3e-3, head_width=16, epochs=1, digits=4),
        ),
    ),
    Parent(
        mode="cl",
        seed=7,
        batch_size=96,
        epochs=1,
        digits=4,
        children=(Child(optimizer="sgd", learning_rate=1e-3, epochs=1, digits=1),),
    ),
)
"""pt-0 with pt-0/ft-0 and pt-0/ft-1, pt-1 with pt-1/ft-0: something to be damaged, and something to be left alone."""

_NAMES = {
    r"cls_token": "vit.embeddings.cls_token",
    r"pos_embed": "vit.embeddings.position_embeddings",
    r"patch_embed\.proj\.(.+)": r"vit.embeddings.patch_embeddings.projection.\1",
    r"blocks\.(\d)\.norm1\.(.+)": r"vit.encoder.layer.\1.layernorm_before.\2",
    r"blocks\.(\d)\.attn\.proj\.(.+)": r"vit.encoder.layer.\1.attention.output.dense.\2",
    r"blocks\.(\d)\.norm2\.(.+)": r"vit.encoder.layer.\1.layernorm_after.\2",
    r"blocks\.(\d)\.mlp\.fc1\.(.+)": r"vit.encoder.layer.\1.intermediate.dense.\2",
    r"blocks\.(\d)\.mlp\.fc2\.(.+)": r"vit.encoder.layer.\1.output.dense.\2",
    r"norm\.(.+)": r"vit.layernorm.\1",
    r"head\.(weight|bias)": r"classifier.\1",
    r"head\.0\.(.+)": r"classifier.fc1.\1",
    r"head\.2\.(.+)": r"classifier.fc2.\1",
}


def short_release(root: Path) -> Release:
    return write_release(root / "dataset", families=SHORT, optimizers=False)


def tiny_job(release: Release | Path, zoo: Path, *, epochs: str = "all", **options: Any) -> Import:
    root = release.root if isinstance(release, Release) else release
    return Import(source=root, root=zoo, epochs=Epochs(epochs), model_types=MODEL_TYPES, **options)


def import_tiny(release: Release | Path, zoo: Path, **options: Any) -> ImportReport:
    return import_release(tiny_job(release, zoo, **options))


def import_until_killed(source: Path, zoo: Path, checkpoints: int) -> None:
    """Kill this process after it has imported some checkpoints."""
    left = checkpoints

    def kill(work: str, size: int, total: int) -> None:
        nonlocal left
        left -= work == "importing"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    import_tiny(source, zoo, jobs=1, progress=kill)


def problems(zoo: Path) -> list[str]:
    """Return the problems that `verify` finds."""
    return [f"{problem.member}: {problem.what}" for problem in verify_zoo(Zoo(zoo)).problems]


def place(model: ReleasedModel) -> str:
    """A model's folder, as reports name it."""
    return "/".join(model.folder.parts[-3 if model.parent else -2 :])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def on_disk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors under a zoo's names, written down independently of the importer's."""
    weights = {}
    for name, tensor in state.items():
        name = name.removeprefix("vit.")
        fused = re.fullmatch(r"blocks\.(\d)\.attn\.qkv\.(.+)", name)
        if fused:
            prefix, rows = f"vit.encoder.layer.{fused[1]}.attention.attention", len(tensor) // 3
            for number, part in enumerate(("query", "key", "value")):
                weights[f"{prefix}.{part}.{fused[2]}"] = tensor[number * rows : (number + 1) * rows]
        else:
            (new,) = [re.sub(old, new, name) for old, new in _NAMES.items() if re.fullmatch(old, name)]
            weights[new] = tensor
    return weights
