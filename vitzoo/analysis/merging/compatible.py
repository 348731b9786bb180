"""Check that the weights of members can be combined: equal networks, classes and preparation of inputs.

Heads that started from other random numbers are a warning. See `vitzoo.analysis.merging.merging` and
`vitzoo.analysis.merging.paths`.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any

from vitzoo.architectures import find_architecture, load_config_json
from vitzoo.errors import SelectionError, printable, shown
from vitzoo.ids import MemberId, MemberRef
from vitzoo.records import layout
from vitzoo.records.files import file_sha256
from vitzoo.tables.catalogue import Catalogue
from vitzoo.zoo.member import Member

# Keys of config.json that do not change the outputs of a network in evaluation mode.
_IGNORED = (
    *("architectures", "transformers_version", "dtype", "torch_dtype", "initializer_range", "label2id", "model_type"),
    *("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "use_cache", "encoder_stride"),
)
_FIRST = ("architecture", "head_role", "id2label", "image_size", "head_width")  # are named in an error before others


def check_compatible(catalogue: Catalogue, refs: Sequence[MemberRef]) -> None:
    """Raise SelectionError if the weights of two members cannot be combined, with the first difference.

    Compared are the networks, the order of the classes, the roles of the heads, and the image processors or tokenizers.
    """
    first, *others = dict.fromkeys(ref.member for ref in refs)
    expected = _describe(catalogue, first)
    for member in others:
        found = _describe(catalogue, member)
        names = [name for name in dict.fromkeys([*_FIRST, *expected, *found]) if expected.get(name) != found.get(name)]
        if names:
            values = [_short(description.get(names[0])) for description in (expected, found)]
            raise SelectionError(
                f"{first} and {member} differ in {names[0]}: {values[0]} and {values[1]}",
                expected="equal networks, classes in one order, and equal preparation of inputs",
                fix=_fix(catalogue, first, member),
                value=str(member),
            )


def _fix(catalogue: Catalogue, one: MemberId, two: MemberId) -> str:
    """Name the condition that selects members like the first, if a column tells them apart."""
    records = [catalogue.member_record(member) for member in (one, two)]
    for column in ("head_role", "head_type", "dataset"):
        value, other = (getattr(record, column) for record in records)
        if value != other:
            text = printable(str(value))
            return f'Select one kind: zoo.select({column}="{text}"), or vitzoo merge ... --where {column}={text}.'
    return "Select members of one kind."


def warn_of_heads(catalogue: Catalogue, refs: Sequence[MemberRef], *, stacklevel: int) -> None:
    """Warn if heads started from other random numbers, or if a member did not complete its training."""
    members = list(dict.fromkeys(ref.member for ref in refs))
    rows = catalogue.member_rows(members).select(["id", "head_seed", "status"]).to_pylist()
    seeds = {row["head_seed"]: row["id"] for row in reversed(rows) if row["head_seed"] is not None}
    if len(seeds) > 1:
        (seed, one), (other_seed, two), *_ = reversed(seeds.items())
        warnings.warn(
            f"The heads of {one} and {two} started from other random numbers (head_seed {seed} and {other_seed}), so "
            "their mean is of unrelated weights. Select one head_seed.",
            stacklevel=stacklevel,
        )
    for row in rows:
        if row["status"] != "completed":
            warnings.warn(f"{row['id']} has the status {shown(row['status'])}.", stacklevel=stacklevel)


def check_one_data_set(catalogue: Catalogue, refs: Sequence[MemberRef]) -> None:
    """Raise SelectionError if members have different data."""
    members = list(dict.fromkeys(ref.member for ref in refs))
    rows = catalogue.member_rows(members).select(["id", "dataset", "dataset_fingerprint"]).to_pylist()
    for row in rows[1:]:
        if row | {"id": None} != rows[0] | {"id": None}:
            raise SelectionError(
                f"{rows[0]['id']} and {row['id']} have different data",
                expected="one data set to evaluate the merged model on",
                fix="Build the model by to_model, and give it to vitzoo.evaluate with samples of your own.",
                value=row["id"],
            )


def _describe(catalogue: Catalogue, member: MemberId) -> dict[str, Any]:
    """Return all values that must be equal, by name."""
    config = load_config_json(catalogue.source.path(layout.config_file(member)))
    architecture = find_architecture(config["model_type"])
    values = {name: value for name, value in config.items() if name not in _IGNORED}
    values |= {"architecture": architecture.backbone, "head_role": architecture.head_role(config)}
    files = catalogue.processor_files(member)
    if architecture.modality == "images":
        return values | {path.name: Member(catalogue, member).load_processor_json() for path in files}
    return values | {path.name: file_sha256(catalogue.source.path(path)) for path in files}


def _short(value: Any) -> str:
    if isinstance(value, dict):
        text = json.dumps(value)
        return text if len(text) <= 100 else "two versions"
    return "none" if value is None else shown(value)
