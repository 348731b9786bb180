"""Member: a model of a zoo as a Python object, with its identity, lineage, weights and metrics.

    member = Zoo("zoo")["pt-12/ft-3"]
    model = member.load(epoch=3)

Files are read when they are needed. See `vitzoo.tables.catalogue` for how records are found.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from vitzoo import records
from vitzoo.architectures import disk_name, load_architecture, load_config_json
from vitzoo.errors import DatasetError, EpochNotFoundError, RecordError, WeightsError, did_you_mean, shown
from vitzoo.ids import MemberId, MemberRef
from vitzoo.notebook import Shown
from vitzoo.progress import with_bar
from vitzoo.records import layout
from vitzoo.sources.source import ZooSource
from vitzoo.tables.catalogue import Catalogue
from vitzoo.tensors.header import TensorEntry, read_header


class Member(Shown):
    """A model of a zoo, with its weights at every saved epoch. Made by `Zoo`.

    Args:
        catalogue: The zoo's records and files.
        member: The member's id.
    """

    def __init__(self, catalogue: Catalogue, member: MemberId):
        self.catalogue = catalogue
        self.id = member
        self._headers: dict[int | None, Mapping[str, TensorEntry]] = {}

    def __repr__(self) -> str:
        return f"Member({str(self.id)!r})"

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"id": self.id, "zoo": self._source.name}
        if not self.catalogue.has_record(self.id):  # never asks the network
            return facts
        record = self.record
        unit = f"{self._source.record.unit}s"
        facts |= {"status": record.status, "parameters": f"{record.num_parameters:,}", unit: record.epochs}
        return facts | {name: value for name, value in self.factors.items() if value is not None}

    def _table_rows(self) -> list[dict[str, Any]]:
        if not self.catalogue.has_record(self.id):
            return []
        names = ("epoch", "train_loss", "val_accuracy", "test_accuracy", "test_knn_accuracy")
        return [{name: getattr(epoch, name) for name in names} for epoch in self.metrics]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (self.id, self._source.root) == (other.id, other._source.root)

    def __hash__(self) -> int:
        return hash((self.id, self._source.root))

    @property
    def _source(self) -> ZooSource:
        return self.catalogue.source

    @property
    def record(self) -> records.MemberRecord:
        """Identity and provenance."""
        return self.catalogue.member_record(self.id)

    @property
    def parent(self) -> "Member | None":
        """The `Member` that this one was fine-tuned from; None for a pre-trained parent.

        ``id.parent_id`` is its id, and ``str`` of that is the column ``parent`` of the tables. ``id.parent`` is the
        number in the id, which a parent has, too.
        """
        if self.id.parent_id is None:
            return None
        if self.id.parent_id not in self.catalogue.member_ids:
            raise self._source.no_member(self.id.parent_id)
        return Member(self.catalogue, self.id.parent_id)

    @property
    def children(self) -> list["Member"]:
        """The members that were fine-tuned from this one."""
        return [Member(self.catalogue, member) for member in self.catalogue.member_ids if member.parent_id == self.id]

    @property
    def epochs(self) -> list[int]:
        """The saved epochs, ascending; 0 is before the first step."""
        return [epoch for epoch in self.catalogue.saved_epochs(self.id) if epoch is not None]

    @property
    def factors(self) -> dict[str, Any]:
        """The values that a recipe chose for this member, such as head, optimizer and seeds; ``extra`` ones too."""
        return {name: getattr(self.record, name) for name in records.FACTORS} | dict(self.record.extra)

    @property
    def metrics(self) -> list[records.EpochRecord]:
        """The metrics of every epoch, ascending. `metrics_at` returns those of one epoch."""
        return self.catalogue.epoch_records(self.id)

    def metrics_at(self, epoch: int | None = None) -> records.EpochRecord:
        """Return the metrics of an epoch, or of the last one for None.

        Raises:
            EpochNotFoundError: That epoch has no metrics.
        """
        by_epoch = {record.epoch: record for record in self.metrics}
        if epoch is None:
            return self.metrics[-1]
        if epoch not in by_epoch:
            raise EpochNotFoundError(
                f"{self.id} has no metrics of epoch {epoch}",
                fix=did_you_mean(epoch, by_epoch),
                epoch=epoch,
                epochs=list(by_epoch),
            )
        return by_epoch[epoch]

    @property
    def folder(self) -> Path:
        """The folder of the member's files; for a Hub repo, of the downloaded ones."""
        return self._source.root / layout.member_folder(self.id)

    def load(self, *, epoch: int | None = None, verify: bool = False, **kwargs: Any):
        """Load the model.

        Args:
            epoch: Finished epochs; None for the final weights.
            verify: Whether to compare the file's sha256 with the record, too.
            **kwargs: As `vitzoo.VitZooModel.from_pretrained`.

        Returns:
            A `vitzoo.VitZooModel` in evaluation mode.
        """
        from vitzoo.models.registry import load_model

        ref = MemberRef(self.id, self._source.name, epoch)
        return load_model(self._source, ref, verify=verify, **kwargs)

    def load_header(self, *, epoch: int | None = None) -> Mapping[str, TensorEntry]:
        """Read names, shapes and dtypes of the tensors, without the weights: one ranged read of a Hub repo.

        Args:
            epoch: Finished epochs; None for the final weights.

        Returns:
            Entries by their names on disk, in the order of the file.

        Raises:
            EpochNotFoundError: That epoch has no weights.
            WeightsError: The header is damaged.
            HubError: The Hub cannot be reached, or refuses.
        """
        if epoch not in self._headers:
            relative = layout.weights_file(self.id, epoch)
            read = partial(self._source.read_range, relative)
            try:
                self._headers[epoch] = read_header(read, path=self._source.root / relative)
            except RecordError:
                raise self.catalogue.no_epoch(self.id, epoch) from None
        return self._headers[epoch]

    def load_tensor(self, name: str, *, epoch: int | None = None):
        """Read one tensor. A Hub repo gets ranged reads of its bytes, and once an epoch of the header.

        Args:
            name: Name on disk or in memory.
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
                f'{self.id} has no tensor "{name}"',
                fix=did_you_mean(name, header),
                path=self._source.root / relative,
            )
        content, _ = self._source.read_range(relative, entry.start, entry.end)
        return to_tensor(content, entry)

    def trajectory(self, *, progress: bool = True, **kwargs: Any) -> Iterator[tuple[int, Any]]:
        """Load the model at every saved epoch, one at a time.

        Args:
            progress: As `vitzoo.weights.population.PopulationWeights.iter_models`.
            **kwargs: As `load`.

        Yields:
            The epoch and the model, ascending.
        """
        epochs = self.epochs
        loaded = ((epoch, self.load(epoch=epoch, **kwargs)) for epoch in epochs)
        return with_bar(loaded, total=len(epochs), show=progress)

    def load_image_processor(self):
        """Load transformers' image processor, which makes ``pixel_values`` of PIL images.

        Raises:
            DatasetError: The member reads texts.
            ConfigError: preprocessor_config.json has a key or value that no member may have.
        """
        from vitzoo.images.processor import image_processor

        self._check_modality("images")
        return image_processor(self.load_processor_json())

    @cached_property
    def modality(self) -> Literal["images", "text"]:
        """The kind of data that the member reads."""
        return load_architecture(self._source.path(layout.config_file(self.id))).modality

    def load_tokenizer(self):
        """Load the tokenizer of a language model, as a `vitzoo.text.tokenizer.Tokenizer`.

        Raises:
            DatasetError: The member reads images.
            ConfigError: tokenizer.json or tokenizer_config.json has a part that no member may have.
        """
        from vitzoo.text.tokenizer import load_tokenizer

        self._check_modality("text")
        self._check_processor("tokenizer", "Pass tokens to the model, or import it again with --tokenizer.")
        paths = [self._source.path(path) for path in layout.processor_files(self.id, "text")]
        return load_tokenizer(paths[0].parent)

    def _check_processor(self, what: str, fix: str) -> None:
        if not self.catalogue.processor_files(self.id):
            raise DatasetError(
                f"{self.id} has no {what}: it was imported without one", fix=fix, dataset=self.record.dataset
            )

    def _check_modality(self, modality: str) -> None:
        if self.modality != modality:
            other = "load_texts and load_tokenizer" if modality == "images" else "load_images and load_image_processor"
            raise DatasetError(
                f"{self.id} reads {self.modality}", expected=modality, fix=f"Use {other}.", dataset=self.record.dataset
            )

    def load_texts(self, *, data: Mapping[str, str | PathLike[str]] | None = None):
        """Load the texts that the member was trained and tested on, as a `vitzoo.text.splits.TextDataset`.

        Args:
            data: Local folders of data sets by name, as in `vitzoo.text.load_text`.

        Raises:
            DatasetError: As `load_images`; or the member reads images.
        """
        self._check_modality("text")
        return self._load_data(data)

    def load_images(self, *, data: Mapping[str, str | PathLike[str]] | None = None):
        """Load the images that the member was trained and tested on, as a `vitzoo.images.ImageDataset`.

        Args:
            data: Local folders of data sets by name, as in `vitzoo.images.load_images`.

        Raises:
            DatasetError: The images are not available, or differ from the member's; or the member reads texts. A data
                set of the Hub that vitzoo does not know is not downloaded.
        """
        self._check_modality("images")
        return self._load_data(data)

    def _load_data(self, data: Mapping[str, str | PathLike[str]] | None) -> Any:
        from vitzoo.data.known import LAYOUT_REVISIONS, check_fetched

        # A Hub zoo's records come from its tables, which have no column for a spec.
        record = records.load_member_record(self._source.path(layout.member_file(self.id)))
        if record.dataset is None:
            raise DatasetError(
                f"The record of {self.id} names no data set",
                fix="Load it with vitzoo.images.load_images or vitzoo.text.load_text.",
            )
        check_fetched(record.dataset, data or {}, asked_by=str(self.id))
        dataset: Any
        if record.text_spec is not None:
            from vitzoo.text.load import load_text

            dataset = load_text(record.text_spec, tokenizer=self.load_tokenizer(), data=data)
        else:
            from vitzoo.images import load_images

            dataset = load_images(record.dataset_spec or record.dataset, data=data)
        expected = self.record.dataset_fingerprint
        if expected is not None and dataset.fingerprint != expected:
            fix = "Install the revision that it was trained on."
            if self.record.dataset_revision in LAYOUT_REVISIONS:
                fix = "Name the same folder, in the same layout, with --data."
            raise DatasetError(
                f"{self.id} was trained on {shown(self.record.dataset)} of {shown(self.record.dataset_revision)} with "
                f"fingerprint {shown(expected[:12])}..., but the data are {dataset.revision} with fingerprint "
                f"{dataset.fingerprint[:12]}...",
                fix=fix,
                dataset=self.record.dataset,
            )
        return dataset

    def evaluate(
        self,
        *,
        part: str = "test",
        epoch: int | None = None,
        data: Mapping[str, str | PathLike[str]] | None = None,
        workers: int = 0,
    ) -> Any:
        """Evaluate the model on its own images or texts, in the precision of its training.

        Args:
            part: ``test``, ``val``, or ``train``: the training samples that its train metrics are of.
            epoch: Finished epochs; None for the final weights.
            data: As `load_images`.
            workers: Processes that decode streamed images; 0 for this one.

        Returns:
            A `vitzoo.models.evaluation.Evaluation`; of a masked model a ``MaskedEvaluation`` of fixed masked tokens.

        Raises:
            DatasetError: As `load_images`; or there is no such part, or no validation split.
        """
        return self.evaluate_model(self.load(epoch=epoch), self.load_part(part, data=data), workers=workers)

    def load_part(self, part: str, *, data: Mapping[str, str | PathLike[str]] | None = None) -> Any:
        """Load the images or texts that the metrics of ``train``, ``val`` or ``test`` are of; arguments as `evaluate`.

        Raises:
            DatasetError: As `evaluate`.
        """
        if part not in ("train", "val", "test"):
            raise DatasetError(f'part is "{part}"', expected="train, val or test", dataset=self.record.dataset)
        split, evaluated = getattr(self._load_data(data), part), self.record.n_train_evaluated
        if not len(split):
            raise DatasetError(
                f"{shown(self.record.dataset)} has nothing in {part}",
                expected="train or test",
                dataset=self.record.dataset,
            )
        return split.evenly(evaluated) if part == "train" and evaluated is not None else split

    def evaluate_model(self, model: Any, split: Any, *, batch_size: int | None = None, workers: int = 0) -> Any:
        """Evaluate a model with this member's preprocessing or tokenizer, in the precision of its training.

        Args:
            model: This member at any epoch, on any device.
            split: Images or texts, from `load_part`.
            batch_size: Samples in a forward pass; None for the trainer's, which gives the recorded bits.
            workers: As `evaluate`.

        Returns:
            As `evaluate`.
        """
        from vitzoo.models.evaluation import EVALUATED_ROWS, evaluate, evaluate_rows

        common: Any = {"precision": self.record.precision or "fp32", "batch_size": batch_size or EVALUATED_ROWS}
        if self.modality == "text":
            return evaluate_rows(model, split, tokenizer=self._tokenizer, **common)
        return evaluate(model, split, **self._preprocessing, workers=workers, **common)

    @cached_property
    def _tokenizer(self) -> Any:
        return self.load_tokenizer()

    @cached_property
    def _preprocessing(self) -> dict[str, Any]:
        """The arguments of `vitzoo.models.evaluation.evaluate` that the image processor says."""
        from vitzoo.images.processor import preprocessing_of

        processor = self.load_processor_json()
        return {
            "mean": processor["image_mean"],
            "std": processor["image_std"],
            "preprocessing": preprocessing_of(processor),
        }

    def load_processor_json(self) -> dict[str, Any]:
        """Read preprocessor_config.json, as `vitzoo.images.processor.load_processor_json` does.

        Raises:
            DatasetError: The member was imported without one.
        """
        from vitzoo.images.processor import load_processor_json

        self._check_processor("image processor", "Pass pixel values to the model, or give evaluate a processor=.")
        model = load_config_json(self._source.path(layout.config_file(self.id)))
        return load_processor_json(self._source.path(layout.image_processor_file(self.id)), model=model)
