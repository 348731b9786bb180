"""List the departures of the trainer itself from a recipe's source, for `Recipe.deviations`.

The field of an entry is a path in the recipe, as Python spells it (``parents[2:7].seeds``), or starts with ``trainer.``
where no recipe has a choice. See `vitzoo.interop.authors.facts.deviation` for the entry.
"""

from vitzoo.interop.authors.facts import BERT_CASED, NEW_MASKS, TEST_METRICS, TRAIN_METRICS, deviation
from vitzoo.interop.authors.facts import CHILDREN_START as RELEASED_CHILDREN_START
from vitzoo.interop.authors.facts import CONTRASTIVE_METRICS as RELEASED_CONTRASTIVE_METRICS


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


_RANDOMNESS = deviation(
    "trainer.randomness",
    ours="a counter-based generator, keyed by seed, epoch and sample",
    source="global generators of torch and numpy",
    why="runs resume and spread over ranks, with other numbers of the same distributions but for erasing noise",
)
TRAINER = (
    _RANDOMNESS,
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
ONE_CYCLE = deviation(
    "trainer.one_cycle",
    ours="of the learning rate alone",
    source="torch's OneCycleLR, which also cycles momentum or the first beta",
    why="a recipe has one momentum",
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


# Of language models.
TEXT_TRAINER = (
    _RANDOMNESS,
    deviation(
        "trainer.train_metrics",
        ours="in evaluation mode",
        source="running, with dropout",
        why="they compare with test metrics",
    ),
    deviation(
        "trainer.test_metrics", ours="all rows", source="drops the last smaller batch", why="nothing is gained by it"
    ),
    deviation(
        "trainer.padding",
        ours="to the longest row of a batch, of rows of similar length",
        source="to 80 tokens",
        why="speed, with equal outputs up to rounding",
    ),
)
MASKS = (
    deviation(
        "trainer.masks",
        ours="a fixed number of tokens a row",
        source="each token with probability .15",
        why="no row is without a mask, and shapes are fixed",
    ),
    deviation("trainer.masked_metrics", ours="masks that never change", source=NEW_MASKS, why="epochs compare"),
)
TEXT_CHILDREN_START = deviation(
    "trainer.children_start",
    ours="their parent's final weights",
    source=RELEASED_CHILDREN_START,
    why="what a child is",
)
POOLER = deviation(
    "trainer.pooler", ours="drawn, a part of the head", source=f"that of {BERT_CASED}", why="a masked parent has none"
)


def adam(path: str) -> str:
    """Return the entry that a path in the recipe trains with AdamW in place of Adam."""
    return deviation(
        f"{path}.optimizer", ours="AdamW, whose weight decay is decoupled", source="Adam, with L2", why="one of both"
    )


def packed_rows(path: str) -> str:
    """Return the entry that a path in the recipe trains on packed rows of texts of any length."""
    return deviation(
        f"{path}.dataset.texts",
        ours="rows of 512 tokens, cut from the stream of 230,000 texts of any length",
        source="900,000 texts of at most 2,000 characters and 100 to 512 tokens, each a row",
        why="about as many tokens, and no padding",
    )


def split_by_hash(path: str) -> str:
    """Return the entry that the sentences of a path in the recipe are split by hash."""
    return deviation(
        f"{path}.dataset.texts",
        ours="sentences of train, of which 10.2 and 19.8% are held out by hash",
        source="sentences of train and validation that occur once, split 70 / 10.2 / 19.8% by scikit-learn",
        why="the hash needs no order",
    )


def evaluated_rows(path: str, count: int) -> str:
    """Return the entry that the train metrics of a path in the recipe are measured on ``count`` of the rows."""
    return deviation(f"{path}.dataset.evaluated_train_rows", ours=f"{count:,}, evenly spaced", source="all")


def random_start(path: str) -> str:
    """Return the entry that the parents of a path in the recipe start from random weights."""
    return deviation(
        f"{path}.start",
        ours="random weights for 28,996 tokens",
        source="bert-base-uncased of 30,522 tokens whose linear layers are drawn again, by a function that cannot run",
        why="what scratch says, and the data have the cased tokenizer",
    )


# Of objectives beyond the paper.
FIRST_WEIGHTS = deviation(
    "trainer.first_weights",
    ours="backbones from kaiming_normal with biases .01",
    source="Xavier uniform for MAE and a truncated normal for DINO, biases 0",
    why="as the other parents",
)


def autoencoding(path: str) -> tuple[str, ...]:
    """Return the entries of masked autoencoders at a path in the recipe, against He et al. 2022.

    `digits_augmentation` adds the entry of digits.
    """
    return (
        deviation(
            f"{path}.training.decoder",
            ours="learned positions and the member's head as its first layer",
            source="fixed sine and cosine positions and a layer of its own",
            why="a member of any kind has learned positions and a trained head",
        ),
        deviation(
            f"{path}.training.optimizer",
            ours="decay of every weight and beta2 .999",
            source="no decay of biases and norms, beta2 .95",
            why="as the other parents",
        ),
    )


def digits_augmentation(path: str, *, source: str) -> str:
    """Return the entry that digits are augmented by affine maps, in place of a source's augmentation."""
    return deviation(
        f"{path}.training.augmentation",
        ours="small affine maps",
        source=source,
        why="digits have a side, a size and no colour",
    )


def distillation(path: str, *, prototypes: int, momentum: str, width: int) -> tuple[str, ...]:
    """Return the entries of self-distillation at a path in the recipe, against Caron et al. 2021.

    Args:
        path: Parents in the recipe.
        prototypes: Number of prototypes.
        momentum: Momentum of the teacher at the first step.
        width: Width of the head's hidden layer.
    """
    return (
        deviation(
            f"{path}.training.distillation",
            ours=f"two views, {prototypes:,} prototypes, first momentum {momentum}",
            source="two large and several small crops, 65,536 prototypes, first momentum .996",
            why="small images have no small crops, and there are few steps",
        ),
        deviation(
            f"{path}.head",
            ours=f"one hidden layer of width {width} with ReLU",
            source="three layers of width 2,048 with GELU",
            why="a head that every member may have",
        ),
        deviation(
            f"{path}.training.optimizer",
            ours="constant decay of every weight, prototypes trained from the first step",
            source="decay from .04 to .4 without biases and norms, prototypes fixed in the first epoch",
            why="as the other parents",
        ),
    )
