"""Load the inputs of a member: its images and its first weights. See `training.member.record` for its parent."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.initialization import no_init_weights

from training.member.execution import Execution
from training.member.initialisation import initialise, initialise_head
from training.recipes.plan import PlannedMember
from training.workspace import Workspace
from vitzoo import records
from vitzoo.errors import TrainingError
from vitzoo.images import FileSplit, ImageDataset, load_images
from vitzoo.models.vit import VitZooConfig, VitZooModel
from vitzoo.records import layout


def load_dataset(planned: PlannedMember, execution: Execution) -> ImageDataset:
    """Load the images of a member, and compare them with its recipe.

    Raises:
        DatasetError: The images are not on this machine.
        TrainingError: Their number, size or classes differ from the recipe's.
    """
    recipe = planned.training.dataset
    dataset = load_images(recipe.images, data=execution.data)
    if len(dataset.train) != recipe.train_images:
        raise TrainingError(
            f"{planned.id}: {recipe.name} has {len(dataset.train)} training images",
            expected=f"{recipe.train_images}, as the recipe says",
            fix="Fix the recipe, or install its data.",
        )
    if planned.head.role == "classifier" and len(dataset.classes) != planned.head.outputs:
        raise TrainingError(
            f"{planned.id}: {recipe.name} has {len(dataset.classes)} classes",
            expected=f"{planned.head.outputs}, the outputs of the recipe's head",
            fix="Fix the recipe.",
        )
    _check_sizes(planned, dataset)
    return dataset


def _check_sizes(planned: PlannedMember, dataset: ImageDataset) -> None:
    """Check that images get the model's size. See `training.recipes.recipe` for sizes within a recipe."""
    side, augmentation = planned.architecture.image_size, planned.training.augmentation
    preprocessing = planned.training.dataset.preprocessing
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


def build_model(
    planned: PlannedMember, classes: tuple[str, ...], *, backbone: Mapping[str, Tensor] | None = None
) -> VitZooModel:
    """Build a member's model before the first step, on the CPU.

    Args:
        planned: Member to train.
        classes: Names of the data set's classes.
        backbone: First weights of a child's backbone. None draws them from the seeds, which takes 1 s for a ViT-S.
    """
    labels: dict[str, Any] = {"num_labels": planned.head.outputs}
    if planned.head.role == "classifier":
        names = dict(enumerate(classes))
        labels = {"id2label": names, "label2id": {name: label for label, name in names.items()}}
    shape = planned.architecture
    config = VitZooConfig(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        num_channels=len(shape.mean),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        **labels,
        head_type=planned.head.type,
        head_width=planned.head.width,
        head_role=planned.head.role,
        architectures=[VitZooModel.__name__],
        dtype="float32",
    )
    with no_init_weights():  # transformers' own are overwritten below
        model = VitZooModel(config)
    if backbone is None:
        initialise(model, init_seed=planned.seeds.init, head_seed=planned.seeds.head)
    else:
        initialise_head(model, planned.seeds.head)
        model.base_model.load_state_dict(backbone)
    return model


def load_backbone(workspace: Workspace, parent: records.MemberRecord) -> Mapping[str, Tensor]:
    """Load the final backbone of a child's parent, and verify its file against the record."""
    folder = workspace.source.path(layout.member_folder(parent.member))
    return VitZooModel.from_pretrained(folder, verify=True).base_model.state_dict()


def compile_backbone(model: VitZooModel, mode: str) -> None:
    """Compile a model's backbone at its first run, unless the mode of `torch.compile` is ``none``.

    Later models with its code and shapes reuse the graphs.
    """
    if mode != "none":
        model.base_model.compile(mode=mode, dynamic=False)
