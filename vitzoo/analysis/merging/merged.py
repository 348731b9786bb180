"""Merged: a model that was merged from checkpoints, with its evaluation, its baselines and its folder for transformers.

The card of the folder names every ingredient. ``base_model`` names Hub repos alone, because the Hub refuses a card with
another text there. The members are in ``ingredients``, with the digests of their weights. See
`vitzoo.analysis.merging.merging` for the methods.
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from vitzoo.analysis.merging.baselines import baselines
from vitzoo.analysis.merging.compatible import check_one_data_set
from vitzoo.architectures import find_architecture
from vitzoo.ids import MemberRef
from vitzoo.notebook import Shown
from vitzoo.records import layout
from vitzoo.tables.cards import escape_markdown, markdown_table
from vitzoo.tables.catalogue import Catalogue
from vitzoo.weights.index import WeightsIndex
from vitzoo.zoo.member import Member
from vitzoo.zoo.selection import Selection

# Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis, section 2: below 2% of error, two
# networks count as linearly connected.
LARGEST_BARRIER = 0.02


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Merged(Shown):
    """A model that was merged from checkpoints. Made by `merge`.

    Args:
        method: The method.
        candidates: The checkpoints that `merge` was given; for ``epochs`` the ingredients.
        ingredients: The merged checkpoints. An anchor, which `stock` and ``task-arithmetic`` start from, is not among
            them.
        anchor: Epoch 0, which all ingredients started from; None for other methods.
        shares: Coefficient of each ingredient; of `stock` the mean over tensors, weighted by their sizes.
        details: Greedy soups: a row for each candidate in the order in which it was tried. Model Stock: a row for each
            tensor. Else a row for each ingredient.
        vector: The merged weights, in the files' dtype; float32 for bfloat16.
        index: Tensors of the vector.
        catalogue: The zoo's records and files.
    """

    method: str
    candidates: tuple[MemberRef, ...]
    ingredients: tuple[MemberRef, ...]
    anchor: MemberRef | None
    shares: tuple[float, ...]
    details: pd.DataFrame
    vector: Float[np.ndarray, " params"]
    index: WeightsIndex
    catalogue: Catalogue

    def _facts(self) -> dict[str, Any]:
        names = [str(ref).removeprefix(f"{ref.zoo}/") for ref in self.ingredients]
        return {"method": self.method, "ingredients": names, "parameters": self.index.size}

    def _table_rows(self) -> list[dict[Any, Any]]:
        return self.details.to_dict("records")

    def to_model(self, *, device: Any = "cpu") -> Any:
        """Build the model, in evaluation mode, with the config of the first ingredient."""
        from vitzoo.weights.models import ReusedModel  # torch and transformers

        config_file = self.catalogue.config_file(self.ingredients[0])
        return ReusedModel(config_file, self.index, dtype=self.vector.dtype, device=device).with_vector(self.vector)

    def evaluate(
        self, *, part: str = "test", data: Mapping[str, str | PathLike[str]] | None = None, device: Any = "cpu"
    ) -> Any:
        """Evaluate the merged model on the data of its ingredients, as `vitzoo.zoo.member.Member.evaluate` does.

        A warning says if the accuracy is more than .02 below the mean of the ingredients' recorded accuracies: there is
        a barrier between them.

        Args:
            part: ``test``, ``val`` or ``train``.
            data: Local folders of data sets by name, as in `vitzoo.images.load_images`.
            device: Where the model runs.

        Raises:
            SelectionError: The ingredients have different data.
            DatasetError: The data are not available, or there is no such part.
        """
        check_one_data_set(self.catalogue, self.ingredients)
        member = Member(self.catalogue, self.ingredients[0].member)
        found = member.evaluate_model(self.to_model(device=device), member.load_part(part, data=data))
        recorded = self.catalogue.epoch_rows(self.ingredients).column(f"{part}_accuracy").to_pylist()
        if None not in recorded and len(recorded) > 1:
            loss = float(np.mean(recorded)) - found.accuracy
            if loss > LARGEST_BARRIER:
                warnings.warn(
                    f"The {part} accuracy of the merged model is {loss:.3f} below the mean of its ingredients: there "
                    "is a barrier between them.",
                    stacklevel=2,
                )
        return found

    def compare(
        self,
        *,
        part: str = "test",
        data: Mapping[str, str | PathLike[str]] | None = None,
        device: Any = "cpu",
        cache: str | PathLike[str] | None = None,
    ) -> pd.Series:
        """Return the accuracies of the merged model, and beside it of what its candidates give without merging.

        Args:
            part: ``test``, ``val`` or ``train``.
            data: As `evaluate`.
            device: Where the models run.
            cache: A folder for the candidates' outputs, as in `vitzoo.behaviour`.

        Returns:
            Accuracies by name: ``merged``, and the baselines of `vitzoo.analysis.merging.baselines`.
        """
        candidates = Selection(catalogue=self.catalogue, refs=self.candidates, left_out={})
        found = baselines(candidates, part=part, data=data, device=device, cache=cache)
        merged = self.evaluate(part=part, data=data, device=device).accuracy
        return pd.Series({"merged": merged, **found}, name=f"{part}_accuracy")

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Save the model for transformers: config, weights, image processor or tokenizer, and a card.

        Args:
            folder: Outside of the zoo's members. Files of the same names are overwritten.

        Raises:
            MemberOverwriteError: The folder is a member's.
        """
        from vitzoo.models.pushing import processor_files  # torch and transformers

        folder, model = Path(folder).expanduser(), self.to_model()
        processors = processor_files(self.catalogue, self.ingredients[0].member)
        model.save_pretrained(folder)
        for processor in processors:
            shutil.copyfile(processor, folder / processor.name)
        (folder / layout.README).write_text(_card(self, model.config.to_dict()), encoding="utf-8")


def _card(merged: Merged, config: dict[str, Any]) -> str:
    """Write the card of a merged model with this config."""
    from vitzoo.models.pushing import hub_task

    source = merged.catalogue.source
    repo, commit = (source.name, commit) if (commit := getattr(source, "commit", None)) else (None, None)
    if source.copied is not None:
        repo, commit = source.copied.repo, source.copied.revision
    architecture = find_architecture(config["model_type"])
    rows = _ingredient_rows(merged)
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": hub_task(config),
        "tags": ["merge", "vitzoo"],
        **({} if repo is None else {"base_model": [repo], "base_model_relation": "merge"}),
        "merge_method": merged.method,
        "ingredients": rows,
    }
    is_plain = config["model_type"] == architecture.backbone
    cls = architecture.classes.get(architecture.head_role(config), "ZooModel")
    zoo = "a local zoo" if repo is None else f"[{repo}](https://huggingface.co/{repo}) at commit `{commit}`"
    head = ("member", "epoch", "share of the weights")
    cells = ((str(row["member"]), str(row["epoch"]), f"{row['share']:.4g}") for row in rows if "share" in row)
    started = [row for row in rows if "share" not in row]
    lines = [
        "---",
        *(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in metadata.items()),
        "---",
        "",
        f"# A merge of {len(merged.ingredients)} checkpoint{'s' * (len(merged.ingredients) > 1)}",
        "",
        f"Merged by vitzoo with the method `{merged.method}` from members of {zoo}. Sums are in float64, and every "
        "tensor is merged.",
        *(f"Its moves are from epoch {row['epoch']} of `{row['member']}`." for row in started),
        "",
        *markdown_table(head, ([escape_markdown(cell) for cell in row] for row in cells)),
        "",
        "```python",
        *([] if is_plain else [f"from vitzoo import {cls}  # registers the model's class"]),
        "from transformers import pipeline",
        "",
        f'model = pipeline("{hub_task(config)}", model="<this folder or repo>")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _ingredient_rows(merged: Merged) -> list[dict[str, Any]]:
    """Return a row for each ingredient, and one without a share for the anchor."""
    refs: list[MemberRef] = [*merged.ingredients, *([] if merged.anchor is None else [merged.anchor])]
    table = merged.catalogue.epoch_rows(refs)
    rows = []
    for number, row in enumerate(table.select(["id", "epoch", "weights_id"]).to_pylist()):
        rows.append({"member": row["id"], "epoch": row["epoch"], "weights_id": row["weights_id"]})
        if number < len(merged.ingredients):
            rows[-1]["share"] = merged.shares[number]
    return rows
