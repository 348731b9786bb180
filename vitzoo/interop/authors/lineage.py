"""Find each child's parent by the weights, and the meaning of the numbers of checkpoints.

A language model that continues the published BERT shares its first weights with its like, and no bias shows them.

A number counts finished epochs where Ray Tune wrote a checkpoint 0 before the first step. Otherwise it counts epochs
from 0, and checkpoint 0 is after the first. A child has its parent's backbone before its first step. Every linear layer
of a parent has the biases that the authors' code starts from.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from vitzoo.errors import ConfigError, ReleaseError, WeightsError, printable
from vitzoo.interop.authors import checkpoints
from vitzoo.interop.authors.job import Import
from vitzoo.interop.authors.release import Model
from vitzoo.interop.bert_names import has_next_sentence
from vitzoo.text.tokenizer import check_tokenizer

_OPEN = 3  # memory-mapped checkpoints: bytes that were compared count as memory while a file is open


def drop_copies(models: Iterable[Model], job: Import) -> list[Model]:
    """Report and drop copies, whose last checkpoint equals another model's.

    Among equal models, the first by this order is kept: it has children, then the shortest name.
    """
    models = list(models)
    families = {model.family for model in models}
    groups: dict[object, list[Model]] = defaultdict(list)
    for model in models:
        last = model.files[model.last_number]
        groups[checkpoints.content_mark(last) or last].append(model)
    copies = set()
    for equal in groups.values():
        kept = min(equal, key=lambda model: (model.family is not None or model.name not in families, len(model.name)))
        for model in equal:
            if model is not kept and _have_equal_ends(model, kept, job):
                copies.add(model.place)
                job.report.skip(model.place, f"is a copy: its last weights are those of {kept.place}. Delete one")
    return [model for model in models if model.place not in copies]


def _have_equal_ends(model: Model, other: Model, job: Import) -> bool:
    """Return whether the last checkpoints of two models hold equal weights; False where one cannot be read."""
    try:
        one, two = (_load_checkpoint(each, each.last_number, job) for each in (model, other))
    except WeightsError:
        return False
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def _load_checkpoint(model: Model, number: int, job: Import) -> dict[str, Tensor]:
    """Load a checkpoint of a model, with the sizes and the head's width that its config says."""
    sizes = job.model_types[model.settings.model_type]
    return checkpoints.load_checkpoint(model.files[number], sizes, outputs=model.settings.outputs)


class Lineage:
    """Resolves one model after another, parents first."""

    def __init__(self, job: Import, models: Iterable[Model] = ()):
        self._job = job
        firsts = [
            checkpoints.content_mark(model.files[0]) for model in models if model.family is None and 0 in model.files
        ]
        # First weights of two parents or more: those of a published model, where they are not drawn from a seed.
        self._shared = {mark for mark, count in Counter(firsts).items() if mark is not None and count > 1}
        self._parents: dict[str, Model] = {}
        # The most recently used checkpoints stay open, such as a parent's.
        self._load = lru_cache(maxsize=_OPEN)(lambda model, number: _load_checkpoint(model, number, job))

    def resolve(self, model: Model) -> bool:
        """Set a model's head, first epoch and start, or report why that fails and return False."""
        try:
            first = self._first_weights(model)
            if model.family is not None:
                is_untrained = self._find_start(model, first)
            else:
                is_untrained = None if first is None else checkpoints.is_untrained(first)
                if is_untrained is None and first is not None:
                    is_untrained = self._is_shared(model)
            if model.settings.epochs is None or model.last_number < model.settings.epochs:
                model.first_epoch = int(is_untrained is False)
                if is_untrained is None:
                    self._note(
                        model,
                        f"no weights show what checkpoint numbers count (the last is {model.last_number}): taken as "
                        "finished epochs, as Ray Tune writes them",
                    )
            self._read_shape(model)
            if model.settings.is_language:
                self._check_language(model)
        except (ConfigError, ReleaseError, WeightsError) as error:
            self._job.report.skip(model.place, error)
            return False
        if model.family is None:
            self._parents[model.name] = model
        return True

    def _find_start(self, child: Model, first: Mapping[str, Tensor] | None) -> bool | None:
        """Set the checkpoint that a child starts from, by folder and config, and shown by its first weights.

        Returns:
            True if its checkpoint 0 is before its first step; None without a checkpoint 0.

        Raises:
            ReleaseError: Its parent is missing, or the names contradict each other or the weights.
        """
        folder, named = child.family or "", child.named_parent
        candidates = [self._parents[name] for name in dict.fromkeys((named, folder)) if name in self._parents]
        if not candidates:
            raise ReleaseError(
                f"its parent {folder} is not taken",
                expected=f"a model pretraining/{folder}",
                fix="Add it, and import again.",
            )
        agree = named in (None, folder)
        if first is not None and (owner := self._match(child, candidates, first)):
            self._check_trained(child, owner)
            if not agree and child.start is not None:
                self._note(
                    child,
                    f"is under {folder}, its config names {named}: it starts with the weights of {child.start.name}",
                )
            return True
        if first is not None and _must_be_untrained(child, first):
            others = [model for model in self._parents.values() if model not in candidates]
            owner = self._match(child, others, first)
            if owner is not None:
                self._check_trained(child, owner)
            raise ReleaseError(
                f"its weights before the first step are those of {owner.name if owner else 'no model that is taken'}",
                expected=f"{' or '.join(model.name for model in candidates)}, by its folder and its config",
                fix="Fix the wrong one.",
            )
        if not agree:
            raise ReleaseError(
                f"is under {folder}, but its config names {named}, and no weights before its first step show which",
                fix="Fix the wrong one.",
            )
        child.start = candidates[0]
        child.start_number = child.start.last_number if child.named_checkpoint is None else child.named_checkpoint
        if child.start_number not in child.start.files:
            raise ReleaseError(
                f"starts from checkpoint {child.start_number} of {folder}, which is missing", fix="Add it."
            )
        self._note(child, f"parent {folder} by folder and config alone: there are no weights before the first step")
        return False if 0 in child.files else None

    def _is_shared(self, model: Model) -> bool | None:
        """Return whether checkpoint 0 of a language model is a published start; None if nothing shows it."""
        if checkpoints.content_mark(model.files[0]) in self._shared:
            return True
        return False if self._shared or model.settings.case == "scratch" else None

    def _check_trained(self, child: Model, owner: Model) -> None:
        """Raise a ReleaseError for a language model that starts from a parent's own start, the published BERT."""
        if child.settings.is_language and (child.start_number, owner.first_epoch) == (0, 0) and owner.last_number > 0:
            raise ReleaseError(
                f"its weights before the first step are those of {owner.name} before its own first step, which is the "
                f"published BERT or random, and not those of its parent {child.family}",
                expected=f"the weights of {child.family} after its training",
                fix="Leave it out: the authors' code loads no tensor of a parent, so it is not a child.",
            )

    def _match(self, child: Model, models: Iterable[Model], first: Mapping[str, Tensor]) -> Model | None:
        """Set a child's start to the checkpoint with its first backbone, and return the model that has it."""
        for model in models:
            named = [child.named_checkpoint] if child.named_checkpoint in model.files else []
            for number in dict.fromkeys((*named, *reversed(model.files))):
                try:
                    weights = self._load(model, number)
                except WeightsError:
                    continue
                if checkpoints.have_equal_backbones(first, weights):
                    child.start, child.start_number = model, number
                    return model
        return None

    def _first_weights(self, model: Model) -> dict[str, Tensor] | None:
        """Return the weights of checkpoint 0; None if it is missing or cannot be read."""
        try:
            return self._load(model, 0) if 0 in model.files else None
        except WeightsError:
            return None

    def _read_shape(self, model: Model) -> None:
        """Set the sizes and the head by the last readable checkpoint."""
        first_error: WeightsError | None = None
        for number in reversed(model.files):
            try:
                weights = self._load(model, number)
                model.outputs, model.head_width = checkpoints.head_shape(weights)
                model.sizes, model.role = checkpoints.sizes_and_role(weights, model.settings, self._job)
                model.next_sentence = has_next_sentence(weights)
                return
            except WeightsError as error:
                first_error = first_error or error
        raise WeightsError(f"none of its checkpoints can be read: {first_error}", path=model.path)

    def _check_language(self, model: Model) -> None:
        """Note contradicting cases, and raise a ReleaseError for a model that the tokenizer does not fit."""
        case, source = model.settings.case, model.start or model
        named = next((word for word in ("continued", "scratch") if source.name.startswith(word)), None)
        if None not in (case, named) and case != named:
            self._note(
                model,
                f"pretraining::case is {case}, but {'its parent' if model.start else 'it'} is called {source.name}: "
                "names and weights count",
            )
        if (model.role == "masked") != (model.family is None):
            raise ReleaseError(
                f"its head is that of a {model.role} model",
                expected="a masked parent, or a classifier as child",
                fix=f"Move it to {'pretraining' if model.role == 'masked' else 'finetuning'}.",
            )
        tokenizer, tokens = self._job.load_tokenizer(), getattr(model.sizes, "vocab_size", 0)
        fix = "Name the tokenizer of its data: --tokenizer ./bert-base-cased."
        check_tokenizer(tokenizer, vocab_size=tokens, by=printable(model.name), fix=fix)
        if tokens > tokenizer.vocab_size:
            self._note(
                model,
                f"has {tokens} token vectors, but its data are of a tokenizer of {tokenizer.vocab_size} tokens: the "
                "others never occur",
            )

    def _note(self, model: Model, text: str) -> None:
        self._job.report.note(model.place, text)


def _must_be_untrained(child: Model, first: Mapping[str, Tensor]) -> bool:
    """Return True if checkpoint 0 cannot be after the first epoch."""
    head = {name: tensor for name, tensor in first.items() if name.startswith("classifier.")}
    fresh_head = "classifier.bias" in head and checkpoints.is_untrained(head)
    return fresh_head or (child.settings.epochs is not None and child.last_number >= child.settings.epochs)
