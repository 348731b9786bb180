"""Define the evening zoo: the paper's structure at a size that one GPU trains in about four hours.

See docs/decisions.md for the reasons of each choice. No GPU has trained it yet.
"""

from dataclasses import replace

from training.recipes.augmentation import Augmentation, ColorJitter, RandomResizedCrop
from training.recipes.data import Dataset
from training.recipes.deviations import FIRST_WEIGHTS, autoencoding, deviation, distillation
from training.recipes.recipe import Architecture, Children, Head, Parent, Recipe, Seeds
from training.recipes.training import Decoder, Distillation, Masking, Mixing, Optimizer, Schedule, Training
from vitzoo.data.known import complete
from vitzoo.records.dataset_spec import DatasetSpec

_PIXELS = 32
_HELD_OUT = 5_000  # of the 50,000 training images of both data sets
_LEARNING_RATES = (3e-3, 1e-3, 1e-4)  # the paper's, of AdamW
_ARCHITECTURE = Architecture(
    image_size=_PIXELS,
    patch_size=4,
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=1024,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
_PRE_TRAINING = Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.05)
_SCHEDULE = Schedule(name="cosine", warmup_steps=1_755)  # five epochs of 351 steps
_MIXING = Mixing(mixup=0.8, cutmix=1.0, label_smoothing=0.1)
# A shift by up to four pixels is the usual random crop of an image with a border of four.
_MOVED = Augmentation(horizontal_flip=0.5, translate=0.125, interpolation="nearest", erasing=0.25)


def _dataset(name: str) -> Dataset:
    return Dataset(
        images=complete(DatasetSpec(name=name, held_out=_HELD_OUT)),
        train_images=50_000 - _HELD_OUT,
        evaluated_train_images=5_000,
        test_images=10_000,
    )


_CIFAR10, _CIFAR100 = _dataset("cifar10"), _dataset("cifar100")
_SUPERVISED = Training(
    objective="supervised",
    dataset=_CIFAR10,
    optimizer=_PRE_TRAINING,
    schedule=_SCHEDULE,
    augmentation=_MOVED,
    mixing=_MIXING,
    precision="bf16",
    epochs=99,
    batch_size=128,
)
_CONTRASTIVE = Training(
    objective="contrastive",
    dataset=_CIFAR10,
    optimizer=_PRE_TRAINING,
    schedule=_SCHEDULE,
    augmentation=Augmentation(
        random_resized_crop=RandomResizedCrop(size=_PIXELS),
        horizontal_flip=0.5,
        color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8),
        grayscale=0.2,
    ),
    temperature=0.5,
    precision="bf16",
    epochs=99,
    batch_size=128,
)
_AUTOENCODING = replace(
    _CONTRASTIVE,
    objective="autoencoding",
    temperature=None,
    augmentation=Augmentation(random_resized_crop=RandomResizedCrop(size=_PIXELS), horizontal_flip=0.5),
    masking=Masking(share=0.75),
    decoder=Decoder(num_hidden_layers=2, num_attention_heads=4, intermediate_size=512),
)
_DISTILLATION = replace(
    _CONTRASTIVE, objective="distillation", temperature=None, distillation=Distillation(prototypes=1024)
)
_FINE_TUNING = Training(
    objective="supervised",
    dataset=_CIFAR100,
    optimizer=Optimizer(name="adamw", learning_rate=1e-3),  # replaced by the grid's
    augmentation=_MOVED,
    mixing=_MIXING,
    precision="bf16",
    epochs=27,
    batch_size=128,
)


def evening() -> Recipe:
    """Return 10 parents on CIFAR-10 and 240 children on CIFAR-100: ViTs of 4.8 million parameters at 32 pixels.

    Source: our choice, after the structure of Falk et al. 2025; sizes after ViT-Lite-6/4 of Hassani et al. 2021
        (arXiv 2104.05704), with MLPs twice as wide.
    Hardware: estimated for one H200 at 28,000 images/s, all members at a time together: 4.0 hours. 53 GB with every
        third epoch, as below; 149 GB with all, 4.8 GB with the last alone. Not measured.
    Accuracy: unknown. ViT-Lite-6/4 has .909 on CIFAR-10 and .692 on CIFAR-100, each from random weights in 200 epochs.
    Command: ``python -m training run evening --out zoo --keep every-3 --members-per-gpu auto``.
    """
    supervised = [
        Parent(training=_SUPERVISED, head=Head(outputs=10), seeds=Seeds.same(number), replicates=2)
        for number in range(7)
    ]
    contrastive = [
        Parent(training=_CONTRASTIVE, head=Head(outputs=128, role="embedding"), seeds=Seeds.same(number), replicates=2)
        for number in range(7, 10)
    ]
    return Recipe(
        name="evening",
        source="our choice, after the structure of Falk et al. 2025 (arXiv 2504.10231)",
        architecture=_ARCHITECTURE,
        parents=(*supervised, *contrastive),
        children=Children(
            training=_FINE_TUNING,
            heads=(Head(outputs=100), Head(outputs=100, width=256)),
            optimizers=(
                *(Optimizer(name="adamw", learning_rate=rate) for rate in _LEARNING_RATES),
                # As in the digits zoo, SGD has momentum and larger rates than the paper's.
                *(Optimizer(name="sgd", learning_rate=rate, momentum=0.9) for rate in (3e-2, 1e-2, 1e-3)),
            ),
            seeds=(100, 101),
        ),
    )


def evening_self_supervised() -> Recipe:
    """Return the evening zoo with other parents: 5 masked autoencoders and 5 self-distilled, with 240 children.

    Source: our choice, after He et al. 2022 and Caron et al. 2021; `deviations` lists the differences.
    Hardware: as `evening`; not measured.
    Accuracy: unknown.
    Command: ``python -m training run evening_self_supervised --out zoo --keep every-3 --members-per-gpu auto``.
    """
    kinds = (
        *((_AUTOENCODING, Head(outputs=128, role="embedding")),) * 5,
        *((_DISTILLATION, Head(outputs=128, width=512, role="embedding")),) * 5,
    )
    parents = tuple(
        Parent(training=training, head=head, seeds=Seeds.same(number), replicates=2)
        for number, (training, head) in enumerate(kinds)
    )
    augmentation = deviation(
        "parents[5:10].training.augmentation",
        ours="crops, flips, colour jitter and grey",
        source="also blur and solarisation",
        why="as the contrastive parents of `evening`",
    )
    return replace(
        evening(),
        name="evening_self_supervised",
        source="our choice, after He et al. 2022 (arXiv 2111.06377) and Caron et al. 2021 (arXiv 2104.14294)",
        parents=parents,
        deviations=(
            *autoencoding("parents[0:5]"),
            *distillation("parents[5:10]", prototypes=1024, momentum=".996", width=512),
            augmentation,
            FIRST_WEIGHTS,
        ),
    )
