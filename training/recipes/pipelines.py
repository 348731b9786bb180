"""Give the architectures, the data sets and the augmentations of the zoo's authors, as parts of a recipe.

See `vitzoo.interop.authors.facts` for sizes and data sets.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``data_preparation``, and for texts
github.com/ModelZoos/TransformerModelZooDataset at ee70028, ``data_preparation``. The order of the augmentations is
`Augmentation`'s. The authors mirror contrastive images before the crop, which gives the same distribution.
"""

from dataclasses import asdict, replace

from training.recipes.augmentation import Augmentation, ColorJitter, GaussianBlur, RandomResizedCrop
from training.recipes.data import Dataset, TextData, TokenizerSpec
from training.recipes.recipe import Architecture
from vitzoo.interop.authors import facts
from vitzoo.records.dataset_spec import TextSpec

VIT_S_16 = Architecture(**asdict(facts.VIT_S_16), mean=facts.MEAN, std=facts.STD)


def _dataset(dataset: facts.AuthorsDataset, evaluated: int) -> Dataset:
    return Dataset(
        images=dataset.spec,
        train_images=dataset.n_train,
        evaluated_train_images=evaluated,
        test_images=dataset.n_test,
        preprocessing=dataset.preprocessing(VIT_S_16.image_size),
    )


# Our choice of evaluated images; a contrastive parent's are also the neighbours that vote on its features.
IMAGENET = _dataset(facts.IMAGENET, 10_000)
CIFAR100 = _dataset(facts.CIFAR100, 5_000)

# Rows are estimates: nobody counted them yet. `training.recipes.language.pin` sets them.
OPENWEBTEXT = TextData(
    texts=TextSpec(
        name=facts.OPENWEBTEXT.name,
        text_column="text",
        test_split=None,
        held_out=10_000,
        test_held_out=10_000,
        train_texts=250_000,
        max_length=facts.OPENWEBTEXT.max_length,
        packed=True,
        unusable="drop",
    ),
    train_rows=540_000,
    evaluated_train_rows=2_048,
    test_rows=27_000,  # beside the 20,000 texts that are held out and make 47,000 rows
)
SST2 = TextData(
    texts=TextSpec(
        name=facts.SST2.name,
        config="sst2",
        text_column="sentence",
        label_column="label",
        test_split=None,  # the labels of its test sentences are not published
        held_out=6_870,
        test_held_out=13_335,
        max_length=facts.SST2.max_length,
        unusable="drop",
    ),
    train_rows=47_000,
    evaluated_train_rows=5_000,
    mean_tokens=13.0,
)
CASED = TokenizerSpec(vocab_size=facts.BERT_BASE.vocab_size, repo=facts.BERT_CASED)

SUPERVISED = Augmentation(random_resized_crop=RandomResizedCrop(size=224), horizontal_flip=0.5)
CONTRASTIVE = Augmentation(
    random_resized_crop=RandomResizedCrop(size=224),
    horizontal_flip=0.5,
    color_jitter=ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1, probability=0.8),
    grayscale=0.2,
    blur=GaussianBlur(kernel_size=9),
)
FINE_TUNING = Augmentation(resize=256, random_crop=224, horizontal_flip=0.5, rotation=10.0, interpolation="nearest")


def with_erasing(augmentation: Augmentation, probability: float) -> Augmentation:
    """Add timm's random erasing in its pixel mode, which the authors apply to a batch after mixing."""
    return replace(
        augmentation,
        erasing=probability,
        erasing_aspect=(0.3, 1 / 0.3),
        erasing_fill="noise",
        erasing_place="after_mixing",
    )
