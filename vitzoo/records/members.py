"""The records of a zoo: zoo.json, and each member's member.json, metrics.jsonl and timing.jsonl.

Format 1. Each field is declared once: type, range, unit, meaning, and whether it is a factor. The columns of the tables
(`vitzoo.tables.columns`), `FACTORS`, the cards and the documentation derive from these declarations. Unknown keys,
missing keys and values of another type or out of range are errors that name the file and the key.

    zoo.json       {"format": 1, "recipe": {"name": "digits", ...}, "recipe_sha256": "...", "metadata_repo": null,
                    "license": "cc-by-4.0", "citation": null, "unit": "epoch"}
    member.json    {"format": 1, "id": "pt-12/ft-3", "parent": "pt-12", ..., "weights": [
                      {"epoch": 0, "size": 171368, "sha256": "..."}, ..., {"epoch": null, ...}], "extra": {}}
    metrics.jsonl  {"epoch": 0, "step": 0, "samples_seen": 0, ..., "weights_id": "...", "extra": {}}, a line an epoch
    timing.jsonl   {"epoch": 1, "training_seconds": .8, "hardware": "..."}, a line an epoch

See `vitzoo.records.layout` for where the files are, and `vitzoo.records.json_files` for how JSON is read and written.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from msgspec import Meta, field

from vitzoo.errors import RecordError, shown
from vitzoo.ids import MemberId
from vitzoo.records.dataset_spec import DatasetSpec, TextSpec
from vitzoo.records.fields import Count, NonNegative, Probability
from vitzoo.records.json_files import Record, ShownRecord, damaged, json_sha256, load_lines, load_record

FORMAT = 1

Stage = Literal["pretraining", "finetuning"]
Status = Literal["completed", "diverged", "failed", "skipped"]
Scalar = str | bool | int | float

ColumnName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Extra = Annotated[dict[ColumnName, Scalar], Meta(description="A lab's own values by name; each name becomes a column.")]


def column(meaning: str, *, factor: bool = False, seed: bool = False, only_for: tuple[str, str] | None = None) -> Meta:
    """Declare a field as a column of a table.

    Args:
        meaning: Its meaning, with unit and range.
        factor: Whether a recipe chooses it, so that it tells members apart.
        seed: Whether the factor only repeats a setting with other random numbers.
        only_for: Another column and the value with which this one applies. It is null with other values.
    """
    return Meta(description=meaning, extra={"factor": factor or seed, "seed": seed, "only_for": only_for})


class ZooRecord(ShownRecord, frozen=True, kw_only=True):
    """zoo.json: the identity of a zoo. Written before anything else.

    Args:
        format: Version of the zoo folder's layout.
        recipe: The whole recipe, as plain JSON.
        recipe_sha256: `json_sha256` of ``recipe``.
        metadata_repo: The Hub dataset repo that holds the tables too; None if there is none.
        license: Licence of weights and tables, as the Hub spells it; None if its authors declare none.
        citation: BibTeX of the zoo; None for none.
        unit: Unit of all numbers that are called epochs, such as the 7 of ``pt-0@7``: finished epochs, or optimizer
            steps for an import whose checkpoints are numbered by steps.
    """

    format: int = FORMAT
    recipe: dict[str, Any]
    recipe_sha256: str
    metadata_repo: str | None = None
    license: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,40}$")] | None = None
    citation: Annotated[str, Meta(max_length=10_000)] | None = None
    unit: Literal["epoch", "step"] = "epoch"


class WeightsRecord(Record, frozen=True, kw_only=True):
    """A weights file of a member. See `vitzoo.records.layout.weights_name` for its name.

    Args:
        epoch: Finished epochs; None for the final weights.
        size: Bytes.
        sha256: Digest of the whole file.
        dtype: Type of its numbers; None for that of config.json, or if the record was read from a table. Saved epochs
            may be bfloat16 beside float32.
    """

    epoch: Count | None
    size: Count
    sha256: str
    dtype: Literal["float32", "bfloat16"] | None = None


class Origin(Record, frozen=True, kw_only=True):
    """Source of an imported member.

    Args:
        release: The release that was imported.
        folder: The member's folder in it.
        files: Paths in that folder of the files that were read, to their sha256.
    """

    release: str
    folder: str
    files: dict[str, str]


class MemberRecord(ShownRecord, frozen=True, kw_only=True):
    """member.json: a member's identity, lineage, factors and provenance.

    Fields declared by `column` are columns of the ``members`` table. The data set, ``weights`` and ``origin`` are None
    if the record was read from a table. Settings of the training are None if they are unknown, as an import's may be.

    Args:
        format: Version of this file's layout.
        dataset_spec: Description with which `vitzoo.images.load_images` finds the images again.
        text_spec: Description with which `vitzoo.text.load_text` finds the texts again.
        weights: The member's weights files.
        origin: Source of an imported member; None for a trained one.
        extra: A lab's own values by name; each name becomes a column.
    """

    format: int = FORMAT
    id: Annotated[str, column("Member inside its zoo: pt-<parent> or pt-<parent>/ft-<child>.")]
    parent: Annotated[str | None, column("Id of the member that it was fine-tuned from; null for a parent.")]
    parent_epoch: Annotated[
        Count | None,
        column("Finished epochs of the parent's weights that it started from; null if an import does not know."),
    ]
    parent_sha256: Annotated[
        str | None, column("sha256 of the parent's weights file that it started from; null if parent_epoch is.")
    ]
    init_group: Annotated[
        str, column("Equal for members that share a random initialisation, children included.", seed=True)
    ]
    stage: Annotated[Stage, column("pretraining or finetuning.", factor=True)]
    status: Annotated[Status, column("completed, diverged, failed or skipped.")]
    diverged_step: Annotated[
        Count | None, column("Finished steps when the loss of a diverged member became NaN or infinite.")
    ]
    last_good_epoch: Annotated[Count | None, column("Last epoch of a diverged member with metrics and weights.")]
    objective: Annotated[
        Literal["supervised", "contrastive", "autoencoding", "distillation", "masked"] | None,
        column("supervised, contrastive, autoencoding, distillation or masked.", factor=True),
    ]
    dataset: Annotated[str | None, column("Name of the data set.", factor=True)]
    dataset_spec: DatasetSpec | None = None
    text_spec: TextSpec | None = None
    dataset_revision: Annotated[str | None, column("Exact source of the data; null for an imported member.")]
    dataset_fingerprint: Annotated[
        str | None,
        column("Digest of all images or tokens, labels and indices; null for an imported member."),
    ]
    classes: Annotated[tuple[str, ...], column("Names of the data set's classes, in the order of the labels.")]
    n_train: Annotated[Count | None, column("Training images, or rows of text.")]
    n_train_evaluated: Annotated[
        Count | None,
        column(
            "Evenly spaced training images or rows that train metrics and k-NN votes are measured on; null for an "
            "imported member."
        ),
    ]
    n_val: Annotated[
        Count | None, column("Validation images or rows; 0 if there are none, null if the number is unknown.")
    ]
    n_test: Annotated[
        Count | None,
        column("Test images or rows that metrics are measured on: all; for an imported member the first ones."),
    ]
    head_type: Annotated[str, column("linear or mlp.", factor=True)]
    head_width: Annotated[
        Count | None,
        column(
            "Width of an MLP head's first hidden layer; null for a linear head.",
            factor=True,
            only_for=("head_type", "mlp"),
        ),
    ]
    head_role: Annotated[str, column("classifier, embedding or masked.", factor=True)]
    optimizer: Annotated[
        Literal["adamw", "sgd", "adam"] | None, column("adamw or sgd; adam for imported members alone.", factor=True)
    ]
    learning_rate: Annotated[NonNegative | None, column("Peak learning rate.", factor=True)]
    weight_decay: Annotated[NonNegative | None, column("Decoupled for adamw, L2 for sgd and adam.", factor=True)]
    momentum: Annotated[
        NonNegative | None,
        column("Momentum of sgd; null for adamw.", factor=True, only_for=("optimizer", "sgd")),
    ]
    schedule: Annotated[
        Literal["constant", "cosine", "linear", "one_cycle"] | None,
        column("constant, cosine, linear or one_cycle.", factor=True),
    ]
    batch_size: Annotated[Count | None, column("Images or rows a step, over all ranks.", factor=True)]
    epochs: Annotated[
        Count,
        column("Epochs trained; in an import the number of its last checkpoint, or 1 if nothing says it.", factor=True),
    ]
    steps: Annotated[Count | None, column("Optimizer steps trained.")]
    mixup: Annotated[NonNegative | None, column("Alpha; 0 for none.", factor=True)]
    cutmix: Annotated[NonNegative | None, column("Alpha; 0 for none.", factor=True)]
    label_smoothing: Annotated[Probability | None, column("0 to 1.", factor=True)]
    random_erasing: Annotated[Probability | None, column("Probability, 0 to 1.", factor=True)]
    beta2: Annotated[
        Probability | None,
        column("Decay of adamw's mean of squared gradients; .999 for sgd, which has none.", factor=True),
    ] = 0.999
    init_seed: Annotated[
        Count | None, column("Seed of the backbone's initialisation; a child has its parent's.", seed=True)
    ]
    head_seed: Annotated[Count | None, column("Seed of the head's initialisation.", seed=True)]
    masking: Annotated[Probability | None, column("Share of masked tokens or patches; 0 for none.", factor=True)] = 0.0
    dropout: Annotated[Probability | None, column("Probability of dropout in training.", factor=True)] = 0.0
    frozen_backbone: Annotated[bool | None, column("Whether only the head was trained.", factor=True)] = False
    max_length: Annotated[Count | None, column("Tokens of the longest row of text; null for images.", factor=True)] = (
        None
    )
    tokenizer_sha256: Annotated[str | None, column("Digest of tokenizer.json; null for images.")] = None
    start_sha256: Annotated[
        str | None,
        column("Digest of the published weights that its family started from; null for random weights."),
    ] = None
    order_seed: Annotated[Count | None, column("Seed of the order of the training data.", seed=True)]
    augmentation_seed: Annotated[Count | None, column("Seed of augmentation, mixing, masking and dropout.", seed=True)]
    replicate: Annotated[Count | None, column("Number of the repetition of its cell of the grid, from 0.", seed=True)]
    precision: Annotated[Literal["fp32", "bf16"] | None, column("fp32 or bf16.", factor=True)]
    compile: Annotated[str | None, column("Mode of torch.compile; none if it was off.", factor=True)]
    ranks: Annotated[Count | None, column("Processes that trained it together.")]
    versions: Annotated[dict[str, str], column("Versions that decide its bits, as pip requirements.")]
    commit: Annotated[
        str | None, column("git commit of the code, with +dirty and a digest of local edits; null outside git.")
    ]
    deviations: Annotated[tuple[str, ...], column("Departures from the source that the recipe follows.")]
    num_parameters: Annotated[Count, column("Parameters, head included.")]
    weights: tuple[WeightsRecord, ...]
    origin: Origin | None = None
    extra: Extra = field(default_factory=dict)

    @property
    def member(self) -> MemberId:
        """The id, parsed."""
        return MemberId.parse(self.id)

    @property
    def final_weights(self) -> WeightsRecord:
        """The record of ``model.safetensors``."""
        return self.weights_at(None)

    @property
    def saved_epochs(self) -> list[int]:
        """Epochs with a saved checkpoint, ascending."""
        return sorted(weights.epoch for weights in self.weights if weights.epoch is not None)

    def weights_at(self, epoch: int | None) -> WeightsRecord:
        """Return the record of an epoch's weights, or of the final ones for None.

        Raises:
            LookupError: That epoch has no saved checkpoint.
        """
        for weights in self.weights:
            if weights.epoch == epoch:
                return weights
        raise LookupError(epoch)


class EpochRecord(ShownRecord, frozen=True, kw_only=True):
    """A line of metrics.jsonl: a member after ``epoch`` finished epochs. Clock times are in `TimingRecord`.

    Fields declared by `column` are columns of the ``epochs`` table.

    Args:
        extra: A lab's own metrics by name; each name becomes a column.
    """

    epoch: Annotated[Count, column("Finished epochs; 0 is before the first step.")]
    step: Annotated[Count | None, column("Finished optimizer steps.")]
    samples_seen: Annotated[Count | None, column("Images or rows trained on so far, with repetition.")]
    learning_rate: Annotated[
        NonNegative | None, column("Learning rate of the last step; of the first step at epoch 0.")
    ]
    train_loss_running: Annotated[
        float | None,
        column("Mean training objective of the epoch, on augmented and mixed images, or masked and dropped tokens."),
    ]
    train_loss: Annotated[
        float | None,
        column("nats, in evaluation mode, on a fixed subset of the training data; null for an imported member."),
    ]
    train_accuracy: Annotated[
        Probability | None,
        column("0 to 1, on the same data; of masked tokens for a masked model; null for an embedding."),
    ]
    val_loss: Annotated[
        float | None,
        column(
            "nats; cross-entropy, of fixed masked tokens for masked members; for contrastive members InfoNCE of fixed "
            "views in whole training batches. Squared error of fixed masked patches for autoencoding; cross-entropy "
            "under the teacher, of fixed views, for distillation."
        ),
    ]
    val_accuracy: Annotated[Probability | None, column("0 to 1; null for an embedding.")]
    val_knn_accuracy: Annotated[
        Probability | None, column("0 to 1; vote of the 5 nearest evaluated training images, for an embedding.")
    ]
    test_loss: Annotated[float | None, column("Measured as val_loss.")]
    test_accuracy: Annotated[Probability | None, column("0 to 1; null for an embedding.")]
    test_knn_accuracy: Annotated[Probability | None, column("Measured as val_knn_accuracy.")]
    weight_norm: Annotated[
        NonNegative | None, column("L2 norm of all weights; null, like the next three, if the epoch has no weights.")
    ]
    distance_from_start: Annotated[
        NonNegative | None, column("L2 distance of all weights from epoch 0; null also if epoch 0 has none.")
    ]
    weights_id: Annotated[str | None, column("Digest of all weights: equal if and only if the weights are equal.")]
    backbone_id: Annotated[str | None, column("Digest of all weights except the head's.")]
    extra: Extra = field(default_factory=dict)


class TimingRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A line of timing.jsonl: clock times and hardware of an epoch. Not part of a member's identity.

    Args:
        epoch: Finished epochs.
        training_seconds: Seconds that the epoch's training took, without evaluation and saving.
        finished_at: Seconds since 1970.
        throughput: Training images, or tokens of texts, a second, after compilation.
        hardware: Name of the processor or GPU.
    """

    epoch: Count
    training_seconds: NonNegative | None = None
    finished_at: NonNegative | None = None
    throughput: NonNegative | None = None
    hardware: Annotated[str, Meta(max_length=120)] | None = None


def load_zoo_record(path: Path) -> ZooRecord:
    """Read a zoo.json.

    Raises:
        RecordError: It is not such a record, or its recipe was edited.
        FormatVersionError: It has a newer format than this library reads.
    """
    record = load_record(ZooRecord, path, newest=FORMAT)
    try:
        sha256 = json_sha256(record.recipe)
    except RecursionError as error:
        raise damaged(str(path), error, path) from None
    if sha256 != record.recipe_sha256:
        raise RecordError(
            f"{path} was edited: recipe_sha256 is {record.recipe_sha256[:12]}...",
            expected=f"{sha256[:12]}..., the hash of its recipe",
            fix="Restore it or generate the zoo again.",
            path=path,
        )
    return record


def load_member_record(path: Path) -> MemberRecord:
    """Read a member.json.

    Raises:
        RecordError: It is not such a record, or names two data sets.
        FormatVersionError: It has a newer format than this library reads.
    """
    record = load_record(MemberRecord, path, newest=FORMAT)
    if record.dataset_spec is not None and record.dataset_spec.name != record.dataset:
        raise RecordError(
            f"{path}: dataset is {shown(record.dataset)}, dataset_spec names {shown(record.dataset_spec.name)}",
            expected="one data set",
            fix="Get the file again.",
            path=path,
        )
    return record


def load_epoch_records(path: Path) -> list[EpochRecord]:
    """Read a metrics.jsonl, epochs in the order of its lines.

    Raises:
        RecordError: The file is empty, or a line is not such a record.
    """
    epochs = load_lines(EpochRecord, path)
    if not epochs:
        raise RecordError(
            f"{path} is empty", expected="metrics of epoch 0 at least", fix="Get the file again.", path=path
        )
    return epochs


def declared_columns(record: type[Record]) -> dict[str, tuple[Any, Meta]]:
    """Return the fields of a record that are declared as columns: name to type and declaration, in order."""
    columns = {}
    for name, hint in get_type_hints(record, include_extras=True).items():
        for meta in getattr(hint, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.extra is not None:
                columns[name] = (hint.__origin__, meta)
    return columns


_DECLARED = {name: meta.extra or {} for name, (_, meta) in declared_columns(MemberRecord).items()}

FACTORS = tuple(name for name, declared in _DECLARED.items() if declared["factor"])
"""The columns that a recipe chooses: they tell members apart."""

SEEDS = tuple(name for name, declared in _DECLARED.items() if declared["seed"])
"""The factors that only repeat a setting with other random numbers."""

ONLY_FOR: dict[str, tuple[str, str]] = {
    name: declared["only_for"] for name, declared in _DECLARED.items() if declared["only_for"] is not None
}
"""The columns that apply with one value of another column, and are null with others: that column and value."""
