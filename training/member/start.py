"""Load the inputs of a member: its data and its first weights. See `training.member.record` for its parent."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from transformers.initialization import no_init_weights

from training.batch import Inputs
from training.images.autoencoder import Autoencoder
from training.images.distillation import SelfDistillation
from training.images.inputs import ImageInputs
from training.member.initialisation import initialise, initialise_head
from training.pretext import Pretext
from training.recipes.data import TextData
from training.recipes.plan import PlannedMember
from training.workspace import Workspace
from vitzoo import records
from vitzoo.architectures import is_head, owner_of
from vitzoo.ids import MemberRef
from vitzoo.models.loading import MemberModel
from vitzoo.models.registry import load_model, model_class


def load_inputs(
    planned: PlannedMember, *, data: Mapping[str, Path], parent: records.MemberRecord | None = None
) -> Inputs:
    """Load the data of a member, and compare them with its recipe.

    Args:
        planned: Member to train.
        data: Folders of data sets on this machine, by name.
        parent: Record of the parent, whose tokenizer the member must have; None for a parent.

    Raises:
        DatasetError: The data are not on this machine.
        ConfigError: The texts have another tokenizer than the parent.
        TrainingError: Their number, size or classes differ from the recipe's.
    """
    if not isinstance(planned.training.dataset, TextData):
        return ImageInputs(planned, data=data)
    from training.text.inputs import TextInputs  # needs tokenizers

    return TextInputs(planned, data=data, tokenizer_sha256=None if parent is None else parent.tokenizer_sha256)


def build_model(
    planned: PlannedMember, classes: tuple[str, ...], *, first: dict[str, Tensor] | None = None
) -> MemberModel:
    """Build a member's model before the first step, on the CPU.

    Args:
        planned: Member to train.
        classes: Names of the data set's classes.
        first: First weights by name, from `load_backbone` or `load_start`: of the backbone, and maybe of the head. None
            draws all from the seeds, which takes 1 s for a ViT-S.
    """
    head = planned.head
    cls = model_class(owner_of(planned.architecture), head.role)
    config = cls.config_for(
        planned.architecture,
        outputs=head.outputs,
        head_width=head.width,
        role=head.role,
        classes=classes if head.role == "classifier" else (),
        dropout=planned.training.dropout,
    )
    with no_init_weights():  # transformers' own are overwritten below
        model = cls(config)
    model.tie_weights()  # skipped together with the initialisation
    if first is None:
        initialise(model, init_seed=planned.seeds.init, head_seed=planned.seeds.head)
    else:
        initialise_head(model, planned.seeds.head)
        model.load_state_dict(saved_tensors(model) | first)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_head(name) or not planned.training.frozen_backbone)
    return model


def add_pretext(planned: PlannedMember, model: MemberModel) -> MemberModel | Pretext:
    """Wrap a member's model with the parts that only its training needs. Most objectives need none."""
    pretexts = {"autoencoding": Autoencoder, "distillation": SelfDistillation}
    pretext = pretexts.get(planned.training.objective)
    return model if pretext is None else pretext(planned, model)


def load_backbone(workspace: Workspace, parent: records.MemberRecord) -> dict[str, Tensor]:
    """Load the final backbone of a child's parent, and verify its file against the record."""
    weights = saved_tensors(load_model(workspace.source, MemberRef(parent.member, None, None), verify=True))
    return {name: tensor for name, tensor in weights.items() if not is_head(name)}


def saved_tensors(model: MemberModel) -> dict[str, Tensor]:
    """Return the tensors that a member's file has, by their names in memory: tied ones once, without gradients."""
    tied = model.architecture.tied
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in tied}


def compile_parts(trained: MemberModel | Pretext, mode: str) -> None:
    """Compile a model's backbone at its first run, or a pretext's parts, unless the mode is ``none``.

    Later models with its code and shapes reuse the graphs.
    """
    if mode == "none":
        return
    parts: tuple[nn.Module, ...] = trained.compiled_parts if isinstance(trained, Pretext) else (trained.base_model,)
    for part in parts:
        part.compile(mode=mode, dynamic=False)
