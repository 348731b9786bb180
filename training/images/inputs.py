"""Load the images of a member, and make batches, metrics and the image processor of them.

See `training.batch.Inputs` for the methods, and `loader.py` for the batches.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from training.batch import Batch, check_dataset
from training.images.autoencoder import example_masks
from training.images.loader import ImageBatches
from training.ranks import Ranks
from training.recipes.data import Dataset
from training.recipes.plan import PlannedMember
from vitzoo.errors import TrainingError
from vitzoo.images import FileSplit, ImageDataset, ImageSplit, load_images
from vitzoo.images.processor import image_processor, processor_arguments
from vitzoo.models.evaluation import EVALUATED_ROWS, Evaluation, evaluate


class ImageInputs:
    """The images of a member, compared with its recipe.

    Args:
        planned: Member to train.
        data: Folders of data sets on this machine, by name.

    Raises:
        DatasetError: The images are not on this machine.
        TrainingError: Their number, size or classes differ from the recipe's.
    """

    def __init__(self, planned: PlannedMember, *, data: Mapping[str, Path]):
        self.planned, self._recipe = planned, cast(Dataset, planned.training.dataset)
        self.dataset = load_images(self._recipe.images, data=data)
        check_dataset(planned, self.dataset)
        _check_sizes(planned, self._recipe, self.dataset)

    def batches(
        self, split: ImageSplit | FileSplit | None = None, *, device: torch.device, **options: Any
    ) -> ImageBatches:
        """Make the batches of a split, by default of the training images; see `training.batch.Inputs`."""
        return ImageBatches(self.planned, self.dataset.train if split is None else split, device=device, **options)

    def measure(self, model: Any, split: ImageSplit | FileSplit, *, ranks: Ranks, workers: int) -> Evaluation:
        """Evaluate this rank's rows of a split, and gather the rows of all ranks."""
        architecture, own = self.planned.architecture, ranks.rows(len(split))
        evaluation = evaluate(
            model,
            split.part(own.start, own.stop) if ranks.count > 1 else split,
            mean=architecture.mean,
            std=architecture.std,
            preprocessing=self._recipe.preprocessing,
            precision=self.planned.training.precision,
            batch_size=EVALUATED_ROWS,
            workers=workers,
        )
        # On the device, since the neighbours of ten thousand images are a large product.
        logits, features, labels = (
            ranks.gather(rows.to(model.device), len(split))
            for rows in (evaluation.logits, evaluation.features, evaluation.labels)
        )
        return Evaluation(logits=logits, features=features, labels=labels)

    def example(self, rows: int, *, device: torch.device) -> Batch:
        """Make a batch of black images; see `training.batch.Inputs`."""
        training, architecture, outputs = self.planned.training, self.planned.architecture, self.planned.head.outputs
        side = architecture.image_size
        pixels = torch.zeros((rows * training.views, len(architecture.mean), side, side), device=device)
        if training.objective == "supervised":
            return Batch(
                inputs={"pixel_values": pixels}, targets=torch.full((rows, outputs), 1 / outputs, device=device)
            )
        return Batch(inputs={"pixel_values": pixels, **example_masks(self.planned, rows, device=device)})

    def save(self, folder: Path) -> None:
        """Write the image processor."""
        architecture = self.planned.architecture
        arguments = processor_arguments(
            self._recipe.preprocessing,
            image_size=architecture.image_size,
            mean=architecture.mean,
            std=architecture.std,
        )
        image_processor(arguments).save_pretrained(folder)


def _check_sizes(planned: PlannedMember, recipe: Dataset, dataset: ImageDataset) -> None:
    """Check that images get the model's size. See `training.recipes.recipe` for sizes within a recipe."""
    side, augmentation = planned.architecture.image_size, planned.training.augmentation
    preprocessing = recipe.preprocessing
    cropped = augmentation.random_crop is not None or augmentation.random_resized_crop is not None
    if isinstance(dataset.train, FileSplit):
        if not cropped or preprocessing.crop is None:
            raise TrainingError(
                f"{planned.id}: the images of {dataset.name} are streamed, of any size",
                expected=f"{side} x {side} pixels for the model",
                fix="Give the recipe a preprocessing with a crop, and an augmentation with a random crop.",
            )
        return
    height, width = dataset.train.images.shape[2:]
    evaluated = preprocessing.resize is not None or preprocessing.crop is not None
    for name, changed in (("preprocessing", evaluated), ("augmentation", cropped or augmentation.resize is not None)):
        if not changed and (height, width) != (side, side):
            raise TrainingError(
                f"{planned.id}: the images of {dataset.name} are {width} x {height} pixels",
                expected=f"{side} x {side} for the model",
                fix=f"Give the recipe's {name} a resize or a crop.",
            )
    smallest = augmentation.resize or min(height, width)
    if augmentation.random_crop is not None and augmentation.random_crop > smallest:
        raise TrainingError(
            f"{planned.id}: random_crop is {augmentation.random_crop}",
            expected=f"at most {smallest}, the smaller side of the images of {dataset.name}",
            fix="Resize them first, or cut smaller squares.",
        )
