"""Declare the data of a training in a recipe: images, or texts with their tokenizer.

See `vitzoo.images` and `vitzoo.text` for how they are loaded.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import msgspec

from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing, TextSpec
from vitzoo.records.fields import Commit, Count, FieldError, Positive, PositiveInt, Sha256, check_fields


class Data:
    """The data of a training: `Dataset` for images, `TextData` for texts."""

    __slots__ = ()
    modality: ClassVar[Literal["images", "text"]]
    unit: ClassVar[str]  # of a sample, in the plural

    @property
    def spec(self) -> DatasetSpec | TextSpec:
        """Return the data set."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Return the name of the data set."""
        return self.spec.name

    @property
    def n_train(self) -> int:
        """Return the number of training samples."""
        raise NotImplementedError

    @property
    def n_evaluated(self) -> int:
        """Return the number of training samples on which train metrics are measured."""
        raise NotImplementedError

    @property
    def n_test(self) -> int:
        """Return the number of validation and test samples together, for the cost alone."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset(Data):
    """The images of a training; see `vitzoo.images`.

    Args:
        images: The data set, as `vitzoo.images.load_images` takes it.
        train_images: Number of training images, compared with the data before training.
        evaluated_train_images: Number of training images, evenly spaced by index, on which train metrics are measured.
        test_images: Number of validation and test images together, for the cost alone; 0 where it is not known.
        preprocessing: Changes of an image before normalisation, at evaluation.
    """

    modality = "images"
    unit = "images"

    images: DatasetSpec
    train_images: PositiveInt
    evaluated_train_images: PositiveInt
    test_images: Count = 0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.evaluated_train_images > self.train_images:
            raise FieldError("evaluated_train_images", self.evaluated_train_images, f"1 to {self.train_images}")

    @property
    def spec(self) -> DatasetSpec:
        """Return the data set."""
        return self.images

    @property
    def n_train(self) -> int:
        """Return the number of training samples."""
        return self.train_images

    @property
    def n_evaluated(self) -> int:
        """Return the number of training samples on which train metrics are measured."""
        return self.evaluated_train_images

    @property
    def n_test(self) -> int:
        """Return the number of validation and test samples together, for the cost alone."""
        return self.images.held_out + self.test_images


@dataclass(frozen=True, kw_only=True, slots=True)
class TextData(Data):
    """The texts of a training; see `vitzoo.text`. A row is a sentence, a pair, or a piece of the stream of all tokens.

    Args:
        texts: The data set, as `vitzoo.text.load_text` takes it.
        train_rows: Number of training rows, compared with the data before training.
        evaluated_train_rows: Number of training rows, evenly spaced, on which train metrics are measured.
        test_rows: Number of validation and test rows together, for the cost alone; 0 where it is not known.
        mean_tokens: Mean number of tokens of a row, for the cost alone; None for ``max_length``.
    """

    modality = "text"
    unit = "rows"

    texts: TextSpec
    train_rows: PositiveInt
    evaluated_train_rows: PositiveInt
    test_rows: Count = 0
    mean_tokens: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.evaluated_train_rows > self.train_rows:
            raise FieldError("evaluated_train_rows", self.evaluated_train_rows, f"1 to {self.train_rows}")

    @property
    def spec(self) -> TextSpec:
        """Return the data set."""
        return self.texts

    @property
    def n_train(self) -> int:
        """Return the number of training samples."""
        return self.train_rows

    @property
    def n_evaluated(self) -> int:
        """Return the number of training samples on which train metrics are measured."""
        return self.evaluated_train_rows

    @property
    def n_test(self) -> int:
        """Return the number of validation and test samples together, for the cost alone."""
        return self.texts.held_out + self.texts.test_held_out + self.test_rows

    @property
    def tokens(self) -> float:
        """Return the mean number of tokens of a row."""
        return self.mean_tokens or self.texts.max_length


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerSpec:
    """The tokenizer of a population of language models, one for all members.

    Args:
        vocab_size: Number of tokens, special ones included.
        texts: Data set whose training texts a new BPE tokenizer is trained on; None for a published tokenizer.
        repo: Hub repo of a published tokenizer; None for a new one.
        commit: Commit of the repo, 40 hex digits. None in a recipe that can be planned but not trained.
        sha256: Digest of its tokenizer.json; None likewise.
    """

    vocab_size: PositiveInt
    texts: TextSpec | None = None
    repo: str | None = None
    commit: Commit | None = None
    sha256: Sha256 | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.texts is None) == (self.repo is None):
            raise FieldError("repo", self.repo, "a Hub repo, or texts to train a tokenizer on, and not both")
        for name in ("commit", "sha256"):
            if self.repo is None and getattr(self, name) is not None:
                raise FieldError(name, getattr(self, name), "None without repo")


def image_data(data: Data) -> Dataset:
    """Return the images of a training; raise TypeError for texts."""
    if isinstance(data, Dataset):
        return data
    raise TypeError(f"{data.name} has {data.unit}; expected images")


def decode_data(value: Any) -> Data:
    """Convert plain JSON of a recipe to `Dataset` or `TextData`."""
    return msgspec.convert(value, TextData if isinstance(value, dict) and "texts" in value else Dataset)
