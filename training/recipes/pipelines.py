"""Define the architecture, data sets and augmentations of the zoo's authors: ViT-S/16, ImageNet-1k and CIFAR-100.

Source: github.com/ModelZoos/ViTModelZoo at 2eb7441, ``data_preparation`` and ``models/vit_s.py``. The order of the
augmentations is `Augmentation`'s: the authors mirror the contrastive images before the crop rather than after it, which
gives the same distribution.
"""

from dataclasses import replace

from training.recipes.augmentation import Augmentation, ColorJitter, GaussianBlur, RandomResizedCrop
from training.recipes.recipe import Architecture
from training.recipes.training import Dataset
from vitzoo.records.dataset_spec import DatasetSpec, Preprocessing

VIT_S_16 = Architecture(  # timm's vit_small_patch16_224; ImageNet's mean and deviation, for CIFAR too
    image_size=224,
    patch_size=16,
    hidden_size=384,
    num_hidden_layers=12,
    num_attention_heads=6,
    intermediate_size=1536,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

IMAGENET = Dataset(
    images=DatasetSpec(
        name="ILSVRC/imagenet-1k", image_column="image", label_column="label", test_split="validation", streamed=True
    ),
    train_images=1_281_167,
    evaluated_train_images=10_000,  # our choice: also the neighbours that vote on a contrastive parent's features
    test_images=50_000,
    preprocessing=Preprocessing(resize=256, crop=224, resample="bilinear"),
)
CIFAR100 = Dataset(
    images=DatasetSpec(name="uoft-cs/cifar100", image_column="img", label_column="fine_label"),
    train_images=50_000,
    evaluated_train_images=5_000,  # our choice
    test_images=10_000,
    preprocessing=Preprocessing(resize=256, crop=224, resample="bicubic"),
)
CLASSES = {IMAGENET.name: 1000, CIFAR100.name: 100}

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
    """Add timm's random erasing in its pixel mode, which the authors apply after mixing."""
    return replace(
        augmentation,
        erasing=probability,
        erasing_aspect=(0.3, 1 / 0.3),
        erasing_fill="noise",
        erasing_place="after_mixing",
    )
