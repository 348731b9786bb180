"""Check configs and image processors: class names, the recipe's architecture, and values that all members share."""

from collections import Counter
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from vitzoo.architectures import find_architecture
from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.models.loading import MemberConfig
from vitzoo.records import MemberRecord, layout
from vitzoo.verification.members import Findings, Scope
from vitzoo.verification.problems import Problems

_CONFIG, _PROCESSOR = (file(MemberId(0)).name for file in (layout.config_file, layout.image_processor_file))
_RECIPE_KEYS_OF_PROCESSOR = {"mean": "image_mean", "std": "image_std"}  # the size was compared with config.json
_SHARED_KEYS_OF_PROCESSOR = ("resample", "do_resize", "do_center_crop")  # equal for members with the same images


def check_configs(scope: Scope, findings: Mapping[MemberId, Findings]) -> None:
    """Add the problems of configs and image processors with the records, the recipe and each other."""
    architecture = scope.source.record.recipe.get("architecture")
    for member in findings.values():
        if member.config is not None and member.record is not None:
            _check_classes(member.problems, member.config, member.record)
        if isinstance(architecture, dict):
            _check_recipe(member, architecture)
    _check_shared(findings)


def _check_classes(problems: Problems, config: MemberConfig, record: MemberRecord) -> None:
    """Compare a classifier's class names with member.json."""
    if config.head_role != "classifier":
        return
    names = [name for _, name in sorted((config.id2label or {}).items())]
    for label, (name, expected) in enumerate(zip_longest(names, record.classes)):
        if name != expected:
            problems.add(f"names class {label} {shown(name)}, but member.json {shown(expected)}", file=_CONFIG)
            return


def _check_recipe(member: Findings, architecture: dict[str, Any]) -> None:
    """Compare a member with the recipe's architecture, as far as the recipe has the keys."""
    compared = []
    if (config := member.config) is not None:
        keys = find_architecture(config.model_type).recipe_keys
        compared += [(_CONFIG, key, getattr(config, key), key) for key in keys]
    if (processor := member.processor) is not None:
        compared += [(_PROCESSOR, key, processor[key], name) for name, key in _RECIPE_KEYS_OF_PROCESSOR.items()]
    for file, key, value, name in compared:
        if name in architecture and value != architecture[name]:
            expected = _format(architecture[name])
            member.problems.add(f"says {key} {_format(value)}, but the recipe in zoo.json {expected}", file=file)


def _check_shared(findings: Mapping[MemberId, Findings]) -> None:
    """Compare each shared value with the most frequent one; of two equally frequent ones the first is expected."""
    configs = {member: result.config for member, result in findings.items() if result.config is not None}
    keys = dict.fromkeys(key for config in configs.values() for key in find_architecture(config.model_type).shared_keys)
    shared = [(_CONFIG, key, {member: getattr(config, key) for member, config in configs.items()}) for key in keys]
    by_images: dict[object, dict[MemberId, dict[str, Any]]] = {}
    for member, result in findings.items():
        if result.processor is not None:
            images = None if result.record is None else (result.record.dataset, result.record.stage)
            by_images.setdefault(images, {})[member] = result.processor
    for processors in by_images.values():
        shared += [
            (_PROCESSOR, key, {member: processor.get(key) for member, processor in processors.items()})
            for key in _SHARED_KEYS_OF_PROCESSOR
        ]
        edges = {member: processor["size"].get("shortest_edge") for member, processor in processors.items()}
        shared.append((_PROCESSOR, "shortest_edge", edges))
    tokenizers = {member: result.tokenizer for member, result in findings.items() if result.tokenizer is not None}
    for key in ("sha256", "vocab_size"):
        values = {member: getattr(tokenizer, key) for member, tokenizer in tokenizers.items()}
        shared.append((layout.TOKENIZER_JSON, key, values))
    for file, key, values in shared:
        for expected, count in Counter(values.values()).most_common(1):
            for member, value in values.items():
                if value != expected:
                    frequent = f"{count} of {len(values)} members {shown(expected)}"
                    findings[member].problems.add(f"says {key} {shown(value)}, but {frequent}", file=file)


def _format(value: Any) -> str:
    return f"[{', '.join(map(shown, value[:4]))}]" if isinstance(value, list) else shown(value)
