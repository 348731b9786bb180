"""Format departures from a source for `Recipe.deviations`, and list those of the trainer in every recipe.

    <field>: <what we do>; source: <what it says, or silent>; <why, or our choice>

A field is a Python path in the recipe (``parents[2:7].seeds``), or starts with ``trainer.`` for what no recipe chooses.
"""


def deviation(field: str, *, ours: str, source: str, why: str = "our choice") -> str:
    """Format one entry.

    Args:
        field: Path in the recipe, or ``trainer.<name>``.
        ours: Value of this recipe.
        source: Value of the source; ``silent`` where it gives none.
        why: Reason for the difference.

    Raises:
        ValueError: An argument is empty, or has a separator of the parts.
    """
    for name, text in (("field", field), ("ours", ours), ("source", source), ("why", why)):
        if not text or ";" in text or (name == "field" and ": " in text):
            raise ValueError(f'{name} of a deviation is "{text}"; expected text without ";"')
    return f"{field}: {ours}; source: {source}; {why}"


def evaluated_images(path: str, count: int) -> str:
    """Return the entry that train metrics are measured on some of the images.

    Args:
        path: Path of a training in the recipe.
        count: Number of images.
    """
    return deviation(
        f"{path}.dataset.evaluated_train_images", ours=f"{count:,}, evenly spaced", source="all, while training"
    )


def contrastive_preprocessing(path: str) -> str:
    """The entry that a contrastive parent's features are compared on images without augmentation.

    Args:
        path: Of a training in the recipe.
    """
    return deviation(
        f"{path}.dataset.preprocessing",
        ours="features from Resize(256) and CenterCrop(224)",
        source="the augmentations of training",
        why="features are compared as a classifier sees images",
    )


# Of the original code, whatever is trained.
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
        "trainer.train_figures",
        ours="unmixed images, not augmented, in evaluation mode",
        source="running, mixed images against unmixed labels",
        why="they compare with test figures",
    ),
    deviation(
        "trainer.test_figures",
        ours="all test images",
        source="drops the last smaller batch, 16 of CIFAR-100's 10,000",
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
CONTRASTIVE_FIGURES = deviation(
    "trainer.contrastive_figures",
    ours="InfoNCE under views that never change and k-NN accuracy of the features",
    source="InfoNCE under new views, a rank accuracy that is 0 in training and the last batch's in test",
    why="epochs compare with one another",
)
CHILDREN_START = deviation(
    "trainer.children_start",
    ours="their parent's final weights",
    source="checkpoint_89 in the one published config, of which it is not said whether it is the last of 90 epochs",
)
