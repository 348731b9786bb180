"""Complete a model that is pushed to the Hub with its member's image processor or tokenizer, and a card.

See `vitzoo.models.loading` for the models, and `vitzoo.tables.model_card` for the card of a whole zoo.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, ModelCard

from vitzoo.architectures import find_architecture, is_head, load_config_json
from vitzoo.errors import VitZooError
from vitzoo.ids import MemberId, MemberRef
from vitzoo.images.processor import load_processor_json
from vitzoo.records import FACTORS, layout
from vitzoo.sources.locate import open_source
from vitzoo.sources.source import HubOptions
from vitzoo.tables.cards import escape_markdown, markdown_table
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tensors.content import load_content
from vitzoo.text.tokenizer import load_tokenizer

_MARK = "<!-- Written by vitzoo at each push. Remove this line to keep your changes. -->"
_REPLACED = (_MARK, "This model card has been automatically generated")  # the second is transformers' template
_TASKS = {
    ("images", "classifier"): "image-classification",
    ("images", "embedding"): "image-feature-extraction",
    ("text", "classifier"): "text-classification",
    ("text", "masked"): "fill-mask",
}
_METRICS = ("val_accuracy", "val_knn_accuracy", "test_accuracy", "test_knn_accuracy")


class Origin(NamedTuple):
    """The member that a model was loaded from, with its zoo and epoch, and the commit of a Hub zoo."""

    ref: MemberRef
    commit: str | None


def complete_push(config: dict[str, Any], origin: Origin, folder: Path, *, repo: str, token: Any) -> None:
    """Add the image processor or tokenizer and the card to a saved model with this config, unless the repo has others.

    A zoo that cannot be read any more is a warning, and the model is pushed without them.
    """
    card = ModelCard.load(folder / layout.README)
    try:
        catalogue = Catalogue(open_source(origin.ref.zoo, options=HubOptions(revision=origin.commit, token=token)))
        processors = processor_files(catalogue, origin.ref.member)
        text = _describe(catalogue, origin, folder, repo=repo, config=config)
    except VitZooError as error:
        is_text = find_architecture(config["model_type"]).modality == "text"
        processor = "a tokenizer" if is_text else "an image processor"
        warnings.warn(f"{repo} is pushed without {processor} and a card: {error}", stacklevel=4)
        return
    for processor in processors:
        if not HfApi().file_exists(repo, processor.name, token=token):
            shutil.copyfile(processor, folder / processor.name)
    if any(mark in card.text for mark in _REPLACED):
        data: Any = card.data
        data.pipeline_tag = hub_task(config)
        if origin.commit is not None:
            data.base_model = origin.ref.zoo
        card.text = text
        card.save(folder / layout.README)


def processor_files(catalogue: Catalogue, member: MemberId) -> list[Path]:
    """Return a member's image processor, or its tokenizer's two files, after checking them; none if it has none."""
    model = load_config_json(catalogue.source.path(layout.config_file(member)))
    modality = find_architecture(model["model_type"]).modality
    paths = [catalogue.source.path(relative) for relative in catalogue.processor_files(member)]
    if not paths:
        return []
    if modality == "images":
        load_processor_json(paths[0], model=model)
    else:
        load_tokenizer(paths[0].parent)
    return paths


def hub_task(config: dict[str, Any]) -> str:
    """Return the Hub's task of a model."""
    architecture = find_architecture(config["model_type"])
    return _TASKS[architecture.modality, architecture.head_role(config)]


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
    task, architecture = hub_task(config), find_architecture(config["model_type"])
    cls = architecture.classes.get(architecture.head_role(config), "ZooModel")
    is_plain = config["model_type"] == architecture.backbone
    usage = [
        *([] if is_plain else [f"from vitzoo import {cls}  # registers the model's class"]),
        "from transformers import pipeline",
        "",
        f'{"fill" if task == "fill-mask" else "classify"} = pipeline("{task}", model="{repo}")',
    ]
    if config.get("head_role") == "embedding":
        usage = [f"from vitzoo import {cls}", "", f'model = {cls}.from_pretrained("{repo}")  # an embedding']
    kind = "vision transformer" if architecture.modality == "images" else "language model"
    rows = [(name, getattr(record, name)) for name in ("parent", *FACTORS)]
    lines = [
        f"# {repo}",
        "",
        f"A {kind} that was loaded from member `{ref.member}` of {zoo}, after epoch {metrics.epoch}. "
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
