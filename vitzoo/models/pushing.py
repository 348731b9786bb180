"""Complete a model that is pushed to the Hub with its member's image processor, and a card of what the zoo records.

See `vitzoo.models.loading` for the models, and `vitzoo.tables.model_card` for the card of a whole zoo.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelCard

from vitzoo.architectures import is_head, load_config_json
from vitzoo.errors import VitZooError
from vitzoo.ids import MemberRef
from vitzoo.images.processor import load_processor_json
from vitzoo.records import FACTORS, layout
from vitzoo.sources.locate import open_source
from vitzoo.sources.source import HubOptions
from vitzoo.tables.cards import escape_markdown, markdown_table
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tensors.content import load_content

_MARK = "<!-- Written by vitzoo at each push. Remove this line to keep your changes. -->"
_REPLACED = (_MARK, "This model card has been automatically generated")  # the second is transformers' template
_METRICS = ("val_accuracy", "val_knn_accuracy", "test_accuracy", "test_knn_accuracy")


class Origin(NamedTuple):
    """The member that a model was loaded from, with its zoo and epoch, and the commit of a Hub zoo."""

    ref: MemberRef
    commit: str | None


def complete_push(config: dict[str, Any], origin: Origin, folder: Path, *, repo: str, token: Any) -> None:
    """Add the image processor and the card to a saved model with this config, unless the repo has others.

    A zoo that cannot be read any more is a warning, and the model is pushed without them.
    """
    member, card = origin.ref.member, ModelCard.load(folder / layout.README)
    try:
        catalogue = Catalogue(open_source(origin.ref.zoo, options=HubOptions(revision=origin.commit, token=token)))
        processor = catalogue.source.path(layout.image_processor_file(member))
        load_processor_json(processor, model=load_config_json(catalogue.source.path(layout.config_file(member))))
        text = _describe(catalogue, origin, folder, repo=repo, config=config)
    except VitZooError as error:
        warnings.warn(f"{repo} is pushed without an image processor and a card: {error}", stacklevel=4)
        return
    if not HfApi().file_exists(repo, processor.name, token=token):
        shutil.copyfile(processor, folder / processor.name)
    if any(mark in card.text for mark in _REPLACED):
        is_embedding = config.get("head_role") == "embedding"
        data: Any = card.data
        data.pipeline_tag = "image-feature-extraction" if is_embedding else "image-classification"
        if origin.commit is not None:
            data.base_model = origin.ref.zoo
        card.text = text
        card.save(folder / layout.README)


def _describe(catalogue: Catalogue, origin: Origin, folder: Path, *, repo: str, config: dict[str, Any]) -> str:
    """Write the card's text."""
    ref, record = origin.ref, catalogue.member_record(origin.ref.member)
    epochs = catalogue.epoch_records(ref.member)
    metrics = next((epoch for epoch in epochs if epoch.epoch == ref.epoch), epochs[-1])
    zoo = "a local zoo"
    if origin.commit is not None:
        zoo = f"the zoo [{ref.zoo}](https://huggingface.co/{ref.zoo}) at commit `{origin.commit}`"
    weights = folder / layout.weights_name()
    is_equal = weights.is_file() and load_content(weights, is_head=is_head).weights_id == metrics.weights_id
    usage = [
        *([] if config["model_type"] == "vit" else ["from vitzoo import VitZooModel  # registers the model's class"]),
        "from transformers import pipeline",
        "",
        f'classify = pipeline("image-classification", model="{repo}")',
    ]
    if config.get("head_role") == "embedding":
        usage = ["from vitzoo import VitZooModel", "", f'model = VitZooModel.from_pretrained("{repo}")  # an embedding']
    rows = [(name, getattr(record, name)) for name in ("parent", *FACTORS)]
    lines = [
        f"# {repo}",
        "",
        f"A vision transformer that was loaded from member `{ref.member}` of {zoo}, after epoch {metrics.epoch}. "
        + ("Its weights are equal to the member's." if is_equal else "Its weights were changed since then."),
        "",
        "```python",
        *usage,
        "```",
        "",
        "## The member",
        "",
        *markdown_table(
            ("field", "value"), ((name, escape_markdown(value)) for name, value in rows if value is not None)
        ),
    ]
    if is_equal:
        measured = {name: getattr(metrics, name) for name in _METRICS}
        cells = ((name, f"{value:.4f}") for name, value in measured.items() if value is not None)
        lines += ["", "## Metrics", "", *markdown_table(("metric", "value"), cells)]
    return "\n".join(("", _MARK, "", *lines, ""))
