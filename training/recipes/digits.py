"""Define the digits zoo: real images on a laptop, in minutes. For tests and teaching, not for claims about ViTs."""

from dataclasses import replace

from training.recipes.augmentation import Augmentation
from training.recipes.data import Dataset
from training.recipes.deviations import FIRST_WEIGHTS, autoencoding, digits_augmentation, distillation
from training.recipes.recipe import Architecture, Children, Head, Parent, Recipe, Seeds
from training.recipes.training import Decoder, Distillation, Masking, Mixing, Optimizer, Schedule, Training
from vitzoo.records.dataset_spec import DatasetSpec

_ARCHITECTURE = Architecture(
    image_size=8,
    patch_size=2,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=128,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
_PARENTS_IMAGES = Dataset(
    images=DatasetSpec(name="digits-0-5"), train_images=649, evaluated_train_images=128, test_images=434
)
_CHILDREN_IMAGES = Dataset(
    images=DatasetSpec(name="digits-6-9"), train_images=429, evaluated_train_images=128, test_images=285
)
_SUPERVISED = Training(
    objective="supervised",
    dataset=_PARENTS_IMAGES,
    optimizer=Optimizer(name="adamw", learning_rate=2e-3, weight_decay=0.05),
    schedule=Schedule(name="cosine", warmup_steps=40),
    augmentation=Augmentation(rotation=10.0, translate=0.06, scale=0.08),
    epochs=18,
    batch_size=16,
)
_CONTRASTIVE = Training(
    objective="contrastive",
    dataset=replace(_PARENTS_IMAGES, evaluated_train_images=325),  # they vote for the nearest neighbours' class
    optimizer=Optimizer(name="adamw", learning_rate=1.5e-3, weight_decay=0.05),
    schedule=Schedule(name="cosine", warmup_steps=40),
    augmentation=Augmentation(rotation=15.0, translate=0.12, scale=0.12),
    temperature=0.1,
    epochs=24,
    batch_size=32,
)
_AUTOENCODING = replace(
    _CONTRASTIVE,
    objective="autoencoding",
    temperature=None,
    optimizer=Optimizer(name="adamw", learning_rate=4e-3, weight_decay=0.05),
    masking=Masking(share=0.75),
    decoder=Decoder(num_hidden_layers=1, num_attention_heads=2, intermediate_size=64),
    epochs=60,
)
_DISTILLATION = replace(
    _CONTRASTIVE,
    objective="distillation",
    temperature=None,
    optimizer=Optimizer(name="adamw", learning_rate=3e-3, weight_decay=0.05),
    distillation=Distillation(prototypes=64, momentum=0.98),
    epochs=40,
)
_FINE_TUNING = Training(
    objective="supervised",
    dataset=_CHILDREN_IMAGES,
    optimizer=Optimizer(name="adamw", learning_rate=1e-3),  # replaced by the grid's
    augmentation=Augmentation(rotation=10.0, translate=0.08, scale=0.08, erasing=0.25),
    mixing=Mixing(mixup=0.8, cutmix=1.0, label_smoothing=0.1),
    epochs=8,
    batch_size=16,
)


def digits() -> Recipe:
    """Return 13 parents and 128 children of 40 thousand parameters, on scikit-learn's digits.

    Source: our choice, after the structure of Falk et al. 2025; tuned on validation (docs/decisions.md).
    Hardware: 1.5 to 2 minutes on 2 CPU cores; 237 MB.
    Accuracy on validation: children .40 to .99, mean .83; supervised parents .92 to .96.
    Command: ``python -m training run digits --out zoo``.
    """
    supervised = [
        Parent(
            training=_SUPERVISED,
            head=Head(outputs=6),
            # pt-1 starts as pt-0 does and sees the images in another order: one initialisation group.
            seeds=replace(Seeds.same(number), init=0, head=0) if number == 1 else Seeds.same(number),
            replicates=2 if number in (0, 1) else 1,
        )
        for number in range(10)
    ]
    contrastive = [
        Parent(
            training=_CONTRASTIVE,
            head=Head(outputs=32, role="embedding"),
            seeds=Seeds.same(number),
            replicates=2 if number == 10 else 1,
        )
        for number in range(10, 13)
    ]
    return Recipe(
        name="digits",
        source="our choice, after the structure of Falk et al. 2025 (arXiv 2504.10231)",
        architecture=_ARCHITECTURE,
        parents=(*supervised, *contrastive),
        children=Children(
            training=_FINE_TUNING,
            heads=(Head(outputs=4), Head(outputs=4, width=64)),
            optimizers=(
                Optimizer(name="adamw", learning_rate=3e-3, weight_decay=0.05),
                Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.05),
                Optimizer(name="sgd", learning_rate=2e-2, weight_decay=5e-4, momentum=0.9),
                Optimizer(name="sgd", learning_rate=5e-3, weight_decay=5e-4, momentum=0.9),
            ),
            seeds=(100, 101, 102),
        ),
    )


def digits_full() -> Recipe:
    """Return the digits zoo with three replicates of every cell: 13 parents and 312 children, including `digits`.

    Source: as `digits`.
    Hardware: 3 to 5 minutes on 2 CPU cores (estimated from `digits`); 496 MB.
    Accuracy: as `digits`.
    Command: ``python -m training run digits_full --out zoo-full``.
    """
    recipe = digits()
    parents = tuple(replace(parent, replicates=3) for parent in recipe.parents)
    return replace(recipe, name="digits_full", parents=parents)


def demo() -> Recipe:
    """Return the zoo in the wheel: 2 parents and 8 children of 11 thousand parameters, with three epochs each.

    Source: as `digits`, with fewer epochs, smaller batches and a smaller backbone, so that it fits into 3 MB.
    Hardware: 10 seconds on 1 CPU core; 2.5 MB.
    Accuracy on test: children .39 to .70; the supervised parent .77.
    Command: ``python -m tests.demo`` writes ``vitzoo/demo`` again.
    """
    recipe = digits()
    short = Schedule(name="cosine", warmup_steps=10)
    optimizer = Optimizer(name="adamw", learning_rate=5e-3, weight_decay=0.05)
    supervised = replace(_SUPERVISED, optimizer=optimizer, schedule=short, epochs=3, batch_size=8)
    contrastive = replace(_CONTRASTIVE, schedule=short, epochs=3, batch_size=16)
    return replace(
        recipe,
        name="demo",
        architecture=replace(_ARCHITECTURE, hidden_size=24, num_hidden_layers=2, intermediate_size=48),
        parents=(
            Parent(training=supervised, head=Head(outputs=6), seeds=Seeds.same(0), replicates=1),
            Parent(training=contrastive, head=Head(outputs=24, role="embedding"), seeds=Seeds.same(1), replicates=1),
        ),
        children=Children(
            training=replace(
                _FINE_TUNING,
                augmentation=replace(_FINE_TUNING.augmentation, erasing=0.0),
                mixing=Mixing(label_smoothing=0.1),  # mixup and cutmix need more epochs
                epochs=3,
                batch_size=8,
            ),
            heads=(Head(outputs=4), Head(outputs=4, width=24)),
            optimizers=(
                Optimizer(name="adamw", learning_rate=3e-3, weight_decay=0.05),
                Optimizer(name="sgd", learning_rate=2e-2, weight_decay=5e-4, momentum=0.9),
            ),
            seeds=(100,),
        ),
    )


def digits_self_supervised() -> Recipe:
    """Return the digits zoo with other parents: 3 masked autoencoders and 3 self-distilled, with 48 children.

    Source: our choice, after He et al. 2022 and Caron et al. 2021; `deviations` lists the differences.
    Hardware: 2 minutes on 2 CPU cores (estimated from `digits`).
    Accuracy on validation: children .87 (autoencoders) and .73 (self-distilled) on average, of one parent each.
    Command: ``python -m training run digits_self_supervised --out zoo-self-supervised``.
    """
    recipe = digits()
    kinds = (
        *((_AUTOENCODING, Head(outputs=32, role="embedding")),) * 3,
        *((_DISTILLATION, Head(outputs=32, width=64, role="embedding")),) * 3,
    )
    parents = tuple(
        Parent(training=training, head=head, seeds=Seeds.same(number), replicates=1)
        for number, (training, head) in enumerate(kinds)
    )
    return replace(
        recipe,
        name="digits_self_supervised",
        source="our choice, after He et al. 2022 (arXiv 2111.06377) and Caron et al. 2021 (arXiv 2104.14294)",
        parents=parents,
        deviations=(
            *autoencoding("parents[0:3]"),
            digits_augmentation("parents[0:3]", source="random resized crops and flips"),
            *distillation("parents[3:6]", prototypes=64, momentum=".98", width=64),
            digits_augmentation("parents[3:6]", source="crops, flips, colour jitter, blur and solarisation"),
            FIRST_WEIGHTS,
        ),
    )
