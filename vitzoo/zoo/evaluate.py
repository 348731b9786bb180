"""Evaluate a member, or a model of one's own, on samples of one's own.

    evaluate(merged, "photos/", processor=zoo["pt-12/ft-3"])

See `vitzoo.models.evaluation` for the forward passes, and `vitzoo.zoo.member` for a member on its own test data.
"""

from pathlib import Path
from typing import Any

import torch

from vitzoo.architectures import find_architecture
from vitzoo.errors import ConfigError, DatasetError, EmbeddingHeadError
from vitzoo.images.own import split_images
from vitzoo.images.processor import load_processor_json, of_transformers, preprocessing_of
from vitzoo.models import evaluation
from vitzoo.models.evaluation import EVALUATED_ROWS, Evaluation, Precision
from vitzoo.models.registry import class_of
from vitzoo.records import layout
from vitzoo.records.layout import PREPROCESSOR_JSON, TOKENIZER_JSON
from vitzoo.sources.locate import open_source
from vitzoo.sources.source import HubOptions
from vitzoo.tables.catalogue import Catalogue
from vitzoo.text.own import split_texts
from vitzoo.text.tokenizer import Tokenizer, check_tokenizer, load_tokenizer, parse_tokenizer
from vitzoo.zoo.member import Member


def evaluate(
    model: Any,
    samples: Any,
    *,
    labels: Any = None,
    processor: Any = None,
    precision: Precision | None = None,
    batch_size: int = EVALUATED_ROWS,
    workers: int = 0,
) -> Evaluation:
    """Evaluate a classifier on labelled images or texts, with the preprocessing and precision of its member.

    Args:
        model: A `Member` (its final weights), or a model of vitzoo or transformers: a ViT or BERT classifier, also one
            that you changed or merged, on any device.
        samples: Images: a split such as ``load_images(...).test``, a uint8 array ``[images, channels, height, width]``,
            a list of PIL images, a folder with a folder of images for each class, or a `datasets.Dataset`. Texts: a
            split, a list of texts or of pairs of texts, or a `datasets.Dataset`.
        labels: Class of each sample, by name or by place in the model's classes; None where the samples have their own.
            Class folders and the class names of a `datasets.Dataset` match the model's by name.
        processor: A `Member`, an image processor or a tokenizer to prepare samples with; None for the model's own: that
            of the member that it was loaded from, or of the folder that it was saved in.
        precision: ``fp32`` or ``bf16``; None for the member's, or fp32 without a member.
        batch_size: Samples in a forward pass; it changes the last bits of the outputs.
        workers: Processes that decode images of a folder or a table; 0 for this one.

    Returns:
        Logits, features and labels, with the metrics as properties: ``accuracy``, ``loss``, ``class_accuracy``,
        ``confusion``.

    Raises:
        DatasetError: There are no samples, or labels are missing or not the model's; or the model has a masked head, no
            processor, or outputs that are NaN or infinite.
        EmbeddingHeadError: The head is an embedding, which has no classes.
        ConfigError: The model is of another kind, or the processor does not fit it.

    Example:
        >>> from vitzoo import Zoo
        >>> member = Zoo("zoo")["pt-0/ft-0"]
        >>> evaluate(member, member.load_images().test)
        Evaluation(samples=143, classes=4, accuracy=..., loss=...)
    """
    if isinstance(model, Member):
        processor, model = (model if processor is None else processor), model.load()
    module = _unwrap(model)
    _check_classifier(module)
    if processor is None:
        processor = _own_processor(module)
    if precision is None:
        precision = (processor.record.precision if isinstance(processor, Member) else None) or "fp32"
    classes, config = evaluation.class_names(module), module.config
    found = None
    if find_architecture(config.model_type).modality == "text":
        tokenizer = _tokenizer(processor, config)
        longest = processor.record.max_length if isinstance(processor, Member) else None
        longest = min(longest or config.max_position_embeddings, config.max_position_embeddings)
        rows = split_texts(samples, labels=labels, classes=classes, tokenizer=tokenizer, max_length=longest)
        found = evaluation.evaluate_texts(module, rows, precision=precision, batch_size=batch_size)
    else:
        values = _image_processor(processor, config)
        found = evaluation.evaluate(
            module,
            split_images(samples, labels=labels, classes=classes),
            mean=values["image_mean"],
            std=values["image_std"],
            preprocessing=preprocessing_of(values),
            precision=precision,
            batch_size=batch_size,
            workers=workers,
        )
    if not torch.isfinite(found.logits).all():
        wrong = int((~torch.isfinite(found.logits).all(1)).sum())
        raise DatasetError(
            f"The outputs for {wrong} of {len(found)} samples are NaN or infinite",
            expected="numbers",
            fix="Look for NaN in the weights, or evaluate in fp32.",
        )
    return found


def _unwrap(model: Any) -> Any:
    """Return the model inside of PEFT, ``torch.compile`` and DataParallel, however nested."""
    while True:
        modules = getattr(model, "_modules", {})
        inner = modules.get("_orig_mod", modules.get("module"))
        if inner is None and hasattr(model, "get_base_model"):
            inner = model.get_base_model()
        if inner is None:
            return model
        model = inner


def _check_classifier(model: Any) -> None:
    """Raise if a model is not a classifier of a known architecture."""
    name = type(model).__name__
    if not hasattr(model, "config"):
        raise ConfigError(
            f"The model is a {name}", expected="a Member, or a ViT or BERT classifier", fix="Load a name first."
        )
    role = getattr(model.config, "head_role", "classifier")
    if role == "embedding":
        raise EmbeddingHeadError(
            f"The {name} has an embedding head of width {model.config.num_labels}, which predicts no class",
            fix="Use member.evaluate(), whose features have a k-NN accuracy (vitzoo.models.evaluation.knn_accuracy).",
        )
    if role == "masked" or name.endswith("ForMaskedLM"):
        raise DatasetError(
            f"The {name} predicts masked tokens and no class",
            fix="Use member.evaluate(), or fine-tune a classifier from it.",
        )
    class_of(model)


def _own_processor(model: Any) -> Any:
    """Return the member that a model was loaded from, or the image processor or tokenizer of its folder."""
    origin = getattr(model, "origin", None)
    if origin is not None:
        source = open_source(origin.ref.zoo, options=HubOptions(revision=origin.commit))
        return Member(Catalogue(source), origin.ref.member)
    folder = Path(model.config.name_or_path or model.name_or_path or "")
    for name in (PREPROCESSOR_JSON, TOKENIZER_JSON):
        if (folder / name).is_file():
            return folder
    raise DatasetError(
        f"The {type(model).__name__} has no image processor or tokenizer beside it",
        expected="one in the folder that it was loaded from",
        fix="Give processor=zoo[...], the member that it was made from, or an image processor or tokenizer.",
    )


def _image_processor(processor: Any, config: Any) -> dict[str, Any]:
    """Return the values of an image processor that fits a model."""
    sizes = {name: getattr(config, name) for name in ("image_size", "num_channels")}
    if isinstance(processor, Member):
        processor._check_modality("images")
        processor = processor.catalogue.source.path(layout.image_processor_file(processor.id))
    elif isinstance(processor, Path):
        processor = processor / PREPROCESSOR_JSON
    if isinstance(processor, Path):
        return load_processor_json(processor, model=sizes)
    if not hasattr(processor, "image_mean"):
        raise ConfigError(f"The processor is a {type(processor).__name__}", expected="a Member or an image processor")
    return of_transformers(processor, model=sizes)


def _tokenizer(processor: Any, config: Any) -> Tokenizer:
    """Return a tokenizer that fits a model."""
    if isinstance(processor, Member):
        processor = processor.load_tokenizer()
    elif isinstance(processor, Path):
        processor = load_tokenizer(processor)
    elif hasattr(processor, "backend_tokenizer"):
        processor = parse_tokenizer(processor.backend_tokenizer.to_str().encode(), path=Path(TOKENIZER_JSON))
    if not isinstance(processor, Tokenizer):
        raise ConfigError(f"The processor is a {type(processor).__name__}", expected="a Member or a tokenizer")
    check_tokenizer(processor, vocab_size=config.vocab_size, by="the model")
    return processor
