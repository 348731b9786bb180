"""Zoo and Member: a population as Python objects.

    zoo = Zoo("zoo")
    member = zoo["pt-12/ft-3"]
    model = member.load(epoch=3)

A zoo is open where its name leads (`vitzoo.source`); what it holds is read from its members' own records.
"""

import os
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vitzoo import layout, records
from vitzoo.errors import (
    DatasetError,
    EpochNotFoundError,
    RecordError,
    WeightsError,
    did_you_mean,
)
from vitzoo.ids import MemberId, MemberRef
from vitzoo.member_json import check_processor_fits, load_config_json, load_processor_json
from vitzoo.selection import matching
from vitzoo.source import HubOptions, ZooSource, open_source
from vitzoo.weights.header import TensorEntry, read_header
from vitzoo.weights.schema import disk_name

# The columns of the members table that a recipe chooses: what makes one member another one.
FACTORS = (
    *("stage", "objective", "dataset", "head_type", "head_width", "head_role", "optimizer", "learning_rate"),
    *("weight_decay", "momentum", "schedule", "batch_size", "epochs", "mixup", "cutmix", "label_smoothing"),
    *("random_erasing", "init_group", "init_seed", "head_seed", "order_seed", "augmentation_seed", "replicate"),
    *("precision", "compile"),
)


class Zoo:
    """A population of vision transformers with its family tree.

    Args:
        name: ``"zoo"`` (``$VITZOO_ZOO``, else ``./zoo``), a path to a folder with zoo.json, or a Hub repo ``org/name``.
        revision: Of a Hub repo: a branch, tag or commit. Resolved now, and pinned.
        token: As in huggingface_hub.
        cache_dir: The Hugging Face cache; None for the usual one.
        local_files_only: Only what is in the cache.
        digest: ``sha256:...`` of the zoo's manifest, as its authors publish it: proves which zoo this is. Every file is
            then compared with the manifest before it is used, cached ones included (about .6 ms a MB).

    Raises:
        ZooNotFoundError: The name leads to no zoo.
        RecordError: zoo.json is damaged, or of a newer format.
        AuthenticityError: It is not the zoo of that digest.
        HubError: The Hub cannot be reached, or refuses.

    Example:
        >>> zoo = Zoo("zoo")  # doctest: +SKIP
        >>> len(zoo), zoo["pt-12/ft-3"].parent  # doctest: +SKIP
        (141, Member('pt-12'))
    """

    def __init__(
        self,
        name: str | os.PathLike[str] = "zoo",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        digest: str | None = None,
    ):
        options = HubOptions(revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        self.source: ZooSource = open_source(name, options=options, digest=digest)

    @classmethod
    def of(cls, source: ZooSource) -> "Zoo":
        """The zoo of a source that is open already."""
        zoo = cls.__new__(cls)
        zoo.source = source
        return zoo

    def __repr__(self) -> str:
        return f"Zoo({self.source.name!r}, {len(self)} members)"

    @cached_property
    def _ids(self) -> list[MemberId]:
        return self.source.member_ids()

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator["Member"]:
        return (Member(self, member) for member in self._ids)

    def __contains__(self, member: object) -> bool:
        return any(member in (known, str(known), Member(self, known)) for known in self._ids)

    def __getitem__(self, member: str | MemberId) -> "Member":
        member = MemberId.parse(member) if isinstance(member, str) else member
        if member not in self._ids:
            raise self.source.no_member(member)
        return Member(self, member)

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the zoo was made by, as plain JSON."""
        return self.source.record.recipe

    def match(self, where: str) -> list["Member"]:
        """The members that a condition holds of.

        Args:
            where: ``factor=value`` pairs joined by commas, such as ``"head_type=mlp,optimizer=adamw"``; empty for all.

        Raises:
            SelectionError: A factor or a value is unknown; the message names the valid ones.
        """
        members = list(self)
        chosen = matching(where, [member.factors | {"id": str(member.id)} for member in members])
        return [members[i] for i in chosen]

    @property
    def parents(self) -> list["Member"]:
        """The pre-trained members."""
        return [member for member in self if member.id.is_parent]


class Member:
    """One model of a zoo: who it is, where it comes from, and its weights at every epoch.

    Made by `Zoo`; nothing is read before it is asked for.
    """

    def __init__(self, zoo: Zoo, member: MemberId):
        self.zoo = zoo
        self.id = member
        self._headers: dict[int | None, dict[str, TensorEntry]] = {}

    def __repr__(self) -> str:
        return f"Member({str(self.id)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (self.id, self.zoo.source.root) == (other.id, other.zoo.source.root)

    def __hash__(self) -> int:
        return hash((self.id, self.zoo.source.root))

    @cached_property
    def record(self) -> records.MemberRecord:
        """Identity and provenance."""
        return self.zoo.source.member_record(self.id)

    @property
    def parent(self) -> "Member | None":
        """The member that this one was fine-tuned from; None for a pre-trained parent."""
        return None if self.id.parent_id is None else self.zoo[self.id.parent_id]

    @property
    def children(self) -> list["Member"]:
        """The members that were fine-tuned from this one."""
        return [member for member in self.zoo if member.id.parent_id == self.id]

    @property
    def epochs(self) -> list[int]:
        """The epochs whose weights were kept, ascending; 0 is before the first step."""
        return [epoch for epoch in self.zoo.source.kept_epochs(self.id) if epoch is not None]

    @property
    def factors(self) -> dict[str, Any]:
        """What makes this member another one than its siblings: objective, head, optimizer, seeds, ..."""
        return {name: getattr(self.record, name) for name in FACTORS}

    @cached_property
    def metrics(self) -> list[records.EpochRecord]:
        """The figures of every epoch, ascending."""
        return self.zoo.source.epoch_records(self.id)

    def metrics_at(self, epoch: int | None = None) -> records.EpochRecord:
        """The figures of an epoch, the last one's for None.

        Raises:
            EpochNotFoundError: There are none of that epoch.
        """
        if epoch is None:
            return self.metrics[-1]
        for record in self.metrics:
            if record.epoch == epoch:
                return record
        epochs = [record.epoch for record in self.metrics]
        raise EpochNotFoundError(
            f"{self.id} has no figures of epoch {epoch}.{did_you_mean(epoch, epochs)}", epoch=epoch, epochs=epochs
        )

    @property
    def folder(self) -> Path:
        """Where its files lie; of a Hub repo, those that were downloaded."""
        return self.zoo.source.root / layout.member_folder(self.id)

    def load(self, *, epoch: int | None = None, verify: bool = False, **kwargs: Any):
        """The model.

        Args:
            epoch: Finished epochs; None for the final weights.
            verify: Also compare the file's sha256 with the record.
            **kwargs: As `vitzoo.VitZooModel.from_pretrained`.

        Returns:
            A `vitzoo.VitZooModel` in evaluation mode.
        """
        from vitzoo.modeling_vitzoo import VitZooModel

        ref = MemberRef(self.id, self.zoo.source.name, epoch)
        return VitZooModel.from_source(self.zoo.source, ref, verify=verify, **kwargs)

    def load_header(self, *, epoch: int | None = None) -> dict[str, TensorEntry]:
        """Names, shapes and dtypes of the tensors, without the weights: of a Hub repo, one ranged read.

        Args:
            epoch: Finished epochs; None for the final weights.

        Returns:
            Names as they are on disk (``vit.encoder.layer.0...``) to entries, by their place in the file.

        Raises:
            EpochNotFoundError: There are no weights of that epoch.
            WeightsError: The header is damaged.
            HubError: The Hub cannot be reached, or refuses.
        """
        if epoch not in self._headers:
            relative = layout.weights_file(self.id, epoch)
            read = partial(self.zoo.source.read_range, relative)
            try:
                self._headers[epoch] = read_header(read, path=self.zoo.source.root / relative)
            except RecordError:
                raise self.zoo.source.no_epoch(self.id, epoch) from None
        return self._headers[epoch]

    def load_tensor(self, name: str, *, epoch: int | None = None):
        """One tensor: of a Hub repo, a ranged read of just its bytes (and of the header, once an epoch).

        Args:
            name: As on disk or as in memory (``vit.layers.0.attention.q_proj.weight``).
            epoch: Finished epochs; None for the final weights.

        Returns:
            A `torch.Tensor` on the CPU, of the file's dtype and shape.

        Raises:
            WeightsError: There is no such tensor.
            EpochNotFoundError, HubError: As `load_header`.
        """
        from vitzoo.weights.tensors import to_tensor

        header = self.load_header(epoch=epoch)
        entry = header.get(disk_name(name))
        relative = layout.weights_file(self.id, epoch)
        if entry is None:
            raise WeightsError(
                f'{self.id} has no tensor "{name}".{did_you_mean(name, header)}', path=self.zoo.source.root / relative
            )
        content, _ = self.zoo.source.read_range(relative, entry.start, entry.end)
        return to_tensor(content, entry)

    def trajectory(self, **kwargs: Any):
        """The model at every kept epoch, one at a time.

        Args:
            **kwargs: As `load`.

        Yields:
            ``(epoch, model)``, ascending.
        """
        for epoch in self.epochs:
            yield epoch, self.load(epoch=epoch, **kwargs)

    def load_image_processor(self):
        """What makes ``pixel_values`` of PIL images.

        Returns:
            A `transformers.ViTImageProcessorPil`.

        Raises:
            ConfigError: preprocessor_config.json says what no member's may say.
        """
        from transformers import ViTImageProcessorPil

        path = self.zoo.source.path(layout.image_processor_file(self.id))
        config = load_processor_json(path)
        check_processor_fits(path, config, load_config_json(self.zoo.source.path(layout.config_file(self.id))))
        return ViTImageProcessorPil(**{key: value for key, value in config.items() if key != "image_processor_type"})

    def load_images(self):
        """The images that it was trained and tested on.

        Returns:
            A `vitzoo.images.ImageDataset`.

        Raises:
            DatasetError: This machine's copy is another one than the member was trained on.
        """
        from vitzoo.images import load_images

        dataset = load_images(self.record.dataset)
        if dataset.fingerprint != self.record.dataset_fingerprint:
            raise DatasetError(
                f"{self.id} was trained on {self.record.dataset} of {self.record.dataset_revision} with fingerprint "
                f"{self.record.dataset_fingerprint[:12]}...; here it is {dataset.revision} with "
                f"{dataset.fingerprint[:12]}.... Install the revision that it was trained on.",
                dataset=self.record.dataset,
            )
        return dataset

    def evaluate(self, *, part: str = "test", epoch: int | None = None):
        """The model on its own images.

        Args:
            part: ``test``, ``val``, or ``train``: the training images that its train figures were measured on.
            epoch: Finished epochs; None for the final weights.

        Returns:
            A `vitzoo.evaluation.Evaluation`.
        """
        from vitzoo.evaluation import evaluate

        if part not in ("train", "val", "test"):
            raise DatasetError(f'No part of {self.record.dataset} is called "{part}": train, val, test.', dataset=part)
        split = getattr(self.load_images(), part)
        processor = self.load_image_processor()
        return evaluate(
            self.load(epoch=epoch),
            split.evenly(self.record.n_train_evaluated) if part == "train" else split,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        )
