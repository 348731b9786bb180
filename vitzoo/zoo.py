"""Zoo and Member: a population as Python objects.

    zoo = Zoo("zoo")
    member = zoo["pt-12/ft-3"]
    model = member.load(epoch=3)

A zoo is open where its name leads (`vitzoo.source`); what it holds is read from its members' own records.
"""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from vitzoo import layout, records
from vitzoo.errors import (
    ConfigError,
    DatasetError,
    EpochNotFoundError,
    MemberNotFoundError,
    did_you_mean,
)
from vitzoo.ids import MemberId
from vitzoo.member_json import load_config_json, load_processor_json
from vitzoo.source import open_source

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
        name: ``"zoo"`` (``$VITZOO_ZOO``, else ``./zoo``) or a path to a folder with zoo.json.

    Raises:
        ZooNotFoundError: The name leads to no zoo.
        RecordError: zoo.json is damaged, or of a newer format.

    Example:
        >>> zoo = Zoo("zoo")  # doctest: +SKIP
        >>> len(zoo), zoo["pt-12/ft-3"].parent  # doctest: +SKIP
        (141, Member('pt-12'))
    """

    def __init__(self, name: str | os.PathLike[str] = "zoo"):
        self.source = open_source(name)

    def __repr__(self) -> str:
        return f"Zoo({str(self.source.root)!r}, {len(self)} members)"

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
            raise MemberNotFoundError(
                f"The zoo {self.source.root} has no member {member}.{did_you_mean(member, self._ids)}", member=member
            )
        return Member(self, member)

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the zoo was made by, as plain JSON."""
        return self.source.record.recipe

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
        return self.record.kept_epochs

    @property
    def factors(self) -> dict[str, Any]:
        """What makes this member another one than its siblings: objective, head, optimizer, seeds, ..."""
        return {name: getattr(self.record, name) for name in FACTORS}

    @cached_property
    def metrics(self) -> list[records.EpochRecord]:
        """The figures of every epoch, ascending."""
        return records.load_epoch_records(self.zoo.source.path(layout.metrics_file(self.id)))

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
        """Where its files lie."""
        return self.zoo.source.path(layout.member_folder(self.id))

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

        return VitZooModel.from_pretrained(self.folder, epoch=epoch, verify=verify, **kwargs)

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
        model = load_config_json(self.zoo.source.path(layout.config_file(self.id)))
        sides, channels = set(config["size"].values()), {len(config["image_mean"]), len(config["image_std"])}
        if sides != {model["image_size"]} or channels != {model["num_channels"]}:
            raise ConfigError(
                f"{path} makes images of {config['size']} with {channels} channels, but the model beside it takes "
                f"{model['image_size']} pixels and {model['num_channels']} channels. Get both files again.",
                path=path,
                key="size",
            )
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
