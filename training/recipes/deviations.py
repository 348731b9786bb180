"""List the departures of the trainer itself from a recipe's source, for `Recipe.deviations`.

The field of an entry is a path in the recipe, as Python spells it (``parents[2:7].seeds``), or starts with ``trainer.``
where no recipe has a choice. See `vitzoo.interop.authors.facts.deviation` for the entry.
"""

from vitzoo.interop.authors.facts import CONTRASTIVE_METRICS as RELEASED_CONTRASTIVE_METRICS
from vitzoo.interop.authors.facts import TEST_METRICS, TRAIN_METRICS, deviation


def evaluated_images(path: str, count: int) -> str:
    """Return the entry that the train metrics of a path in the recipe are measured on ``count`` of the images."""
    return deviation(
        f"{path}.dataset.evaluated_train_images", ours=f"{count:,}, evenly spaced", source="all, while training"
    )


def contrastive_preprocessing(path: str) -> str:
    """Return the entry that the contrastive features of a path are compared on images without augmentation."""
    return deviation(
        f"{path}.dataset.preprocessing",
        ours="features from Resize(256) and CenterCrop(224)",
        source="the augmentations of training",
        why="features are compared as a classifier sees images",
    )


TRAINER = (
    deviation(
        "trainer.randomness",
        ours="a counter-based generator, keyed by seed, epoch and sample",
        source="global generators of torch and numpy",
        why="runs resume and spread over ranks, with other numbers of the same distributions but for erasing noise",
    ),
    deviation(
        "trainer.images",
        ours="tensors in batches on the device",
        source="torchvision on PIL images one by one",
        why="speed, with the same definitions up to rounding",
    ),
    deviation(
        "trainer.train_metrics",
        ours="unmixed images, not augmented, in evaluation mode",
        source=TRAIN_METRICS,
        why="they compare with test metrics",
    ),
    deviation(
        "trainer.test_metrics",
        ours="all test images",
        source=TEST_METRICS,
        why="nothing is gained by dropping it",
    ),
)
MIXING_PARTNER = deviation(
    "trainer.mixing_partner",
    ours="the image a drawn number of places before in the batch",
    source="timm's, the mirrored place",
    why="no image meets itself and no pair comes twice",
)
ERASING_NOISE = deviation(
    "trainer.erasing_noise",
    ours="one table of 2^20 normal numbers of seed 0, in which each erased image reads on from a place of its own",
    source="new normal numbers for each erased pixel",
    why="speed, with noise that images share in part",
)
CONTRASTIVE_METRICS = deviation(
    "trainer.contrastive_metrics",
    ours="InfoNCE under views that never change and k-NN accuracy of the features",
    source=RELEASED_CONTRASTIVE_METRICS,
    why="epochs compare with one another",
)
CHILDREN_START = deviation(
    "trainer.children_start",
    ours="their parent's final weights",
    source="checkpoint_89 in the one published config, of which it is not said whether it is the last of 90 epochs",
)
