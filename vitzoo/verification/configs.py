"""What no shape shows: class names, the recipe's architecture, and what all members of a zoo share."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from vitzoo.architectures import Architecture, find_architecture
from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.models.loading import MemberConfig
from vitzoo.records import MemberRecord, layout
from vitzoo.verification.members import Findings, Scope
from vitzoo.verification.problems import Problems

_CONFIG, _PROCESSOR = (file(MemberId(0)).name for file in (layout.config_file, layout.image_processor_file))
_OF_PROCESSOR = {"mean": "image_mean", "std": "image_std"}  # its size is held against config.json's when it is read
# What decides outputs or training beside the recipe, and is equal for all members that see the same images.
_SHARED_OF_PROCESSOR = ("resample", "do_resize", "do_center_crop")


def check_configs(scope: Scope, findings: Mapping[MemberId, Findings]) -> None:
    """Check the configs and image processors against the records, the recipe and each other.

    Args:
        scope: What is looked at.
        findings: What was found of each member; problems are added to it.
    """
    architecture = scope.source.record.recipe.get("architecture")
    for found in findings.values():
        if found.config is not None and found.record is not None:
            _check_classes(found.problems, found.config, found.record)
        if isinstance(architecture, dict):
            _check_recipe(found, architecture)
    _check_shared(findings)


def _check_classes(problems: Problems, config: MemberConfig, record: MemberRecord) -> None:
    """A classifier's names are those of its images, in their order."""
    if config.head_role != "classifier":
        return
    names = [name for _, name in sorted((config.id2label or {}).items())]
    if len(names) != len(record.classes):
        problems.add(f"names {len(names)} classes, but member.json {len(record.classes)}", file=_CONFIG)
        return
    for label, (found, expected) in enumerate(zip(names, record.classes, strict=True)):
        if found != expected:
            problems.add(f"names class {label} {shown(found)}, but member.json {shown(expected)}", file=_CONFIG)
            return


def _check_recipe(found: Findings, architecture: dict[str, Any]) -> None:
    """What the recipe leaves out, as an older or newer one may, is not compared."""
    compared = []
    if found.config is not None:
        compared += [(_CONFIG, key, getattr(found.config, key), key) for key in _architecture(found.config).recipe_keys]
    if found.processor is not None:
        compared += [(_PROCESSOR, key, found.processor[key], its) for its, key in _OF_PROCESSOR.items()]
    for file, key, value, its in compared:
        if its in architecture and value != architecture[its]:
            expected = _brief(architecture[its])
            found.problems.add(f"says {key} {_brief(value)}, but the recipe in zoo.json {expected}", file=file)


def _check_shared(findings: Mapping[MemberId, Findings]) -> None:
    """What one member alone says was changed in it; where two values are equally frequent, the first is expected."""
    configs = {member: found.config for member, found in findings.items() if found.config is not None}
    keys = dict.fromkeys(key for config in configs.values() for key in _architecture(config).shared_keys)
    said = [(_CONFIG, key, {member: getattr(its, key) for member, its in configs.items()}) for key in keys]
    for processors in _processors_by_images(findings):
        said += [
            (_PROCESSOR, key, {member: its.get(key) for member, its in processors.items()})
            for key in _SHARED_OF_PROCESSOR
        ]
        shorter = {member: its["size"].get("shortest_edge") for member, its in processors.items()}
        said.append((_PROCESSOR, "shortest_edge", shorter))
    for file, key, values in said:
        for expected, count in Counter(values.values()).most_common(1):
            for member, value in values.items():
                if value != expected:
                    findings[member].problems.add(
                        f"says {key} {shown(value)}, but {count} of {len(values)} members {shown(expected)}", file=file
                    )


def _processors_by_images(findings: Mapping[MemberId, Findings]) -> Iterable[dict[MemberId, dict[str, Any]]]:
    """The image processors of members that say how they see the same images."""
    grouped: dict[tuple[str | None, str] | None, dict[MemberId, dict[str, Any]]] = {}
    for member, found in findings.items():
        if found.processor is not None:
            images = None if found.record is None else (found.record.dataset, found.record.stage)
            grouped.setdefault(images, {})[member] = found.processor
    return grouped.values()


def _architecture(config: MemberConfig) -> Architecture:
    return find_architecture(config.model_type)


def _brief(value: Any) -> str:
    return f"[{', '.join(map(shown, value[:4]))}]" if isinstance(value, list) else shown(value)
