"""Give the architecture, the data sets and the augmentations of the zoo's authors, as parts of a recipe.

See `vitzoo.interop.authors.facts` for sizes and data sets.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``data_preparation``. The order of the augmentations is
`Augmentation`'s. The authors mirror contrastive images before the crop, which gives the same distribution.
"""

from dataclasses import asdict, replace

from training.recipes.augmentation import Augmentation, ColorJitter, GaussianBlur, RandomResizedCrop
from training.recipes.data import Dataset
from training.recipes.recipe import Architecture
from vitzoo.interop.authors import facts

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
