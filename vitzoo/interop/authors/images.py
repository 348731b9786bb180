"""The data sets that the authors' configs name, as far as the release itself does not say what they are.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``data_preparation``; Krizhevsky 2009 for CIFAR-100's classes.
"""

from dataclasses import dataclass
from typing import Literal

from vitzoo.images.known import KNOWN
from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for CIFAR too
_FINE_LABELS = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel "
    "can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
    "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree "
    "pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea "
    "seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm "
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """A data set of the authors.

    Args:
        spec: Which images they are.
        n_train: Training images.
        n_test: Test images.
        classes: Their names, in the order of the labels.
        resample: PIL's filter of the resize.
    """

    spec: DatasetSpec
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    resample: Literal["bilinear", "bicubic"]

    def preprocessing(self, image_size: int) -> Preprocessing:
        """What is done to a test image before it is normalised: Resize(256), CenterCrop(224), or the same of a side."""
        return Preprocessing(resize=round(image_size * 256 / 224), crop=image_size, resample=self.resample)


# A folder of torchvision's, which they read, holds the images of the Hub's data set.
_CIFAR100, _IMAGENET = (known.spec for known in KNOWN)
IMAGES = {
    "imagenet1k": Images(
        spec=_IMAGENET,
        n_train=1_281_167,
        n_test=50_000,
        classes=tuple(map(str, range(1000))),  # their names stand in no file of the release
        resample="bilinear",
    ),
    "cifar100": Images(
        spec=_CIFAR100,
        n_train=50_000,
        n_test=10_000,
        classes=tuple(_FINE_LABELS.split()),
        resample="bicubic",
    ),
}
