"""Compare members with the recipe in zoo.json: the factors that it plans, and the learning rate of each epoch.

The trainer plans members in `training.recipes.plan`; a test compares both. Recipes of imported zoos plan nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import Any

import msgspec

from vitzoo.errors import shown
from vitzoo.ids import MemberId
from vitzoo.records import MemberRecord
from vitzoo.verification.members import Findings, Scope

_FIX = "Get the member and zoo.json again, or train the member again."


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A member as a recipe plans it."""

    fields: Mapping[str, Any]  # of its member.json
    outputs: int  # of its head
    warmup_steps: int

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, from 0, as `training.member.step` does."""
        peak, schedule, steps = (self.fields[name] for name in ("learning_rate", "schedule", "steps"))
        if schedule == "one_cycle":
            first, last, top = peak / 25, peak / 25e4, 0.3 * steps - 1
            low, share = (first, step / top) if step <= top else (last, 1 - (step - top) / (steps - 1 - top))
            return low + (peak - low) * 0.5 * (1 - math.cos(math.pi * share))
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        if schedule == "constant":
            return peak
        share = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        if schedule == "linear":
            return peak * (1 - share)
        return peak * 0.5 * (1 + math.cos(math.pi * share))


def check_plan(scope: Scope, findings: Mapping[MemberId, Findings]) -> None:
    """Add a problem for every field of a member that differs from its recipe."""
    recipe = scope.source.record.recipe
    if "parents" not in recipe:
        return
    for member in findings.values():
        if member.record is None:
            continue
        try:
            plan = plan_member(recipe, member.member)
            _compare(member, member.record, plan)
        except (LookupError, TypeError, ValueError, ArithmeticError):
            member.problems.add("the recipe in zoo.json has no such member", fix=_FIX)


def plan_member(recipe: Mapping[str, Any], member: MemberId) -> Plan:
    """Return a member as a recipe of the trainer plans it.

    The children of a parent are numbered by replicate, then head, then optimizer.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: The recipe does not have the member.
    """
    parent, children = recipe["parents"][member.parent], recipe["children"]
    if member.child is None:
        training, head, seeds, replicate = parent["training"], parent["head"], parent["seeds"], 0
        optimizer = training["optimizer"]
    else:
        cell, number = divmod(member.child, len(children["optimizers"]))
        replicate, place = divmod(cell, len(children["heads"]))
        range(parent["replicates"]).index(replicate)
        training, head, optimizer = children["training"], children["heads"][place], children["optimizers"][number]
        seed = children["seeds"][replicate]
        seeds = {"init": parent["seeds"]["init"], "head": seed, "order": seed, "augmentation": seed}
    dataset, mixing = training["dataset"], training["mixing"]
    unit = "images" if "images" in dataset else "rows"
    images, texts = dataset.get("images"), dataset.get("texts")
    start, masking = parent.get("start"), training.get("masking")
    fields = {
        "init_group": f"{start['repo']}@{start['commit'][:12]}" if start else f"init-{seeds['init']}",
        "stage": "pretraining" if member.is_parent else "finetuning",
        "objective": training["objective"],
        "dataset": (images or texts)["name"],
        "dataset_spec": images,
        "text_spec": texts,
        "n_train": dataset[f"train_{unit}"],
        "n_train_evaluated": dataset[f"evaluated_train_{unit}"],
        "head_type": "linear" if head["width"] is None else "mlp",
        "head_width": head["width"][0] if isinstance(head["width"], list) else head["width"],
        "head_role": head["role"],
        "optimizer": optimizer["name"],
        **{name: optimizer[name] for name in ("learning_rate", "weight_decay", "momentum")},
        "beta2": optimizer.get("beta2", 0.999),
        "schedule": training["schedule"]["name"],
        "batch_size": training["batch_size"],
        "epochs": training["epochs"],
        "steps": index(training["epochs"]) * (dataset[f"train_{unit}"] // training["batch_size"]),
        **{name: mixing[name] for name in ("mixup", "cutmix", "label_smoothing")},
        "random_erasing": training["augmentation"]["erasing"],
        "start_sha256": start["sha256"] if start else None,
        "masking": masking["share"] if masking else 0.0,
        "dropout": training.get("dropout", 0.0),
        "frozen_backbone": training.get("frozen_backbone", False),
        "max_length": texts["max_length"] if texts else None,
        **{f"{name}_seed": seeds[name] for name in ("init", "head", "order", "augmentation")},
        "replicate": replicate,
        "precision": training["precision"],
    }
    return Plan(fields=fields, outputs=head["outputs"], warmup_steps=training["schedule"]["warmup_steps"])


def _compare(member: Findings, record: MemberRecord, plan: Plan) -> None:
    values = {name: msgspec.to_builtins(getattr(record, name)) for name in plan.fields}
    different = [name for name, expected in plan.fields.items() if values[name] != expected]
    for name in different:
        what = f"says {name} {shown(values[name])}, but the recipe in zoo.json {shown(plan.fields[name])}"
        member.problems.add(what, file="member.json", fix=_FIX)
    key = "vocab_size" if plan.fields["head_role"] == "masked" else "num_labels"
    outputs = plan.outputs if member.config is None else getattr(member.config, key)
    if outputs != plan.outputs:
        what = f"says {key} {outputs}, but the recipe in zoo.json {shown(plan.outputs)}"
        member.problems.add(what, file="config.json", fix=_FIX)
    for line in member.metrics if not different else ():
        if line.step is None or line.learning_rate is None:
            continue
        expected = plan.learning_rate(max(0, line.step - 1))
        if not math.isclose(line.learning_rate, expected, rel_tol=1e-9):
            what = f"says learning_rate {line.learning_rate} of epoch {line.epoch}; the recipe in zoo.json {expected}"
            member.problems.add(what, file="metrics.jsonl", fix=_FIX)
    if record.head_role != "masked":  # its accuracy is of tokens, whose number no record has
        _check_shares(member, record)


def _check_shares(member: Findings, record: MemberRecord) -> None:
    """Add a problem for every accuracy that no number of right answers gives."""
    counts = {"train": record.n_train_evaluated, "val": record.n_val, "test": record.n_test}
    for line in member.metrics:
        for key in ("train_accuracy", "val_accuracy", "val_knn_accuracy", "test_accuracy", "test_knn_accuracy"):
            accuracy, count = getattr(line, key), counts[key.partition("_")[0]]
            if accuracy is not None and count is not None and abs(accuracy * count - round(accuracy * count)) > 1e-6:
                what = f"says {key} {accuracy} of epoch {line.epoch}; expected a number of right answers by {count}"
                member.problems.add(what, file="metrics.jsonl", fix=_FIX)
