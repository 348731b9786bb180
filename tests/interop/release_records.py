"""Make the authors' text files: names of folders, config.json, the lines of result.json.

Keys are those of the published example configurations; the lines hold what the authors' trainable returned and what
Ray Tune added to it, names of machines and people's paths among that.
"""

import hashlib
import math
import random
from dataclasses import dataclass, replace
from typing import Any, Literal

from tests.interop.authors_vit import VIT_S_16, Size

ZOOS = "/ds2/model_zoos/zoos_vit/zoos"
PRIVATE = ("gpu-node-17", "10.1.2.3", "/raid/dfalk", "/ds2/", "ObjectRef(")
"""What must not appear anywhere in an imported zoo."""

Digits = Literal[1, 4, 6]
"""At least so many in the name of a checkpoint's folder."""

_IMAGENET_IMAGES, _CIFAR_IMAGES = 1_281_167, 50_000
_DATE = 1_693_526_400  # 2023-09-01, midnight, UTC


@dataclass(frozen=True, kw_only=True)
class Child:
    """A fine-tuned model. ``from_epoch``: the parent's epoch it begins from, the last where None."""

    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    head_width: int | None = None
    seed: int = 42
    weight_decay: float = 0
    momentum: float = 0
    epochs: int = 2
    batch_size: int = 256
    classes: int = 100
    digits: Digits = 6
    from_epoch: int | None = None
    validated: bool = False
    absent_keys: tuple[str, ...] = ()

    def checkpoint_number(self, epoch: int) -> int | None:
        return epoch

    def name_under(self, parent: "Parent") -> str:
        return (
            f"{parent.mode}_ft_SD_{self.seed}_LR_{self.learning_rate:g}_WD_{self.weight_decay:g}_OM_{self.optimizer}"
            f"_HD_{self.head_width or 'NA'}_FZ_False_FCMLP_{self.head_width is not None}"
        )


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A pre-trained model and its children.

    ``numbering`` says what a checkpoint's number counts: finished epochs, or epochs from 0 after the first, and then
    nothing was written before the first step.
    """

    mode: Literal["sl", "cl"]
    seed: int
    epochs: int
    digits: Digits
    numbering: Literal["finished epochs", "from first epoch"] = "finished epochs"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0
    batch_size: int = 256
    outputs: int = 1000
    validated: bool = False
    absent_keys: tuple[str, ...] = ()
    children: tuple[Child, ...] = ()

    def checkpoint_number(self, epoch: int) -> int | None:
        if self.numbering == "finished epochs":
            return epoch
        return epoch - 1 if epoch > 0 else None

    @property
    def name(self) -> str:
        pixels = "_224" if self.mode == "sl" else ""
        return (
            f"{self.mode}_vit_s_16{pixels}_seed_{self.seed}_bs_{self.batch_size}_lr_{self.learning_rate:g}"
            f"_wd_{self.weight_decay:g}_me_{self.epochs}"
        )


def parent_config(parent: Parent, size: Size) -> dict[str, Any]:
    supervised = parent.mode == "sl"
    dump = f"{ZOOS}/ImageNet/dataset_dump/imagenet_{'supervised' if supervised else 'contrastive'}_ds2.pt"
    config = {
        "dataset::dump": dump,
        "dataset::name": "ImageNet1K",
        "model::channels_in": 3,
        "model::init_type": "kaiming_normal",
        "model::nlin": "gelu",
        "model::o_dim": parent.outputs,
        **_architecture(size),
        "model::name": parent.name,
        **_optimization(parent),
        **_training(parent, workers=4 if supervised else 8, mixed=supervised),
        "training::temperature": 0 if supervised else 0.07,
        "training::mode": parent.mode,
    }
    return {key: value for key, value in config.items() if key not in parent.absent_keys}


def child_config(child: Child, parent: Parent, size: Size) -> dict[str, Any]:
    number = parent.checkpoint_number(parent.epochs if child.from_epoch is None else child.from_epoch)
    mlp = child.head_width is not None
    config = {
        "dataset::dump": f"{ZOOS}/CIFAR100/dataset_dump/cifar.pt",
        "dataset::name": "CIFAR100",
        "model::channels_in": 3,
        "model::init_type": "kaiming_normal",
        "model::head::mlp": mlp,
        "model::head::hidden_dim": child.head_width,
        "model::head::nlin": "relu" if mlp else None,
        "model::nlin": "gelu",
        "model::head::seed": child.seed,
        "model::freeze_encoder": False,
        "model::o_dim": child.classes,
        **_architecture(size),
        "model::name": child.name_under(parent),
        **_optimization(child),
        **_training(child, workers=3, mixed=True),
        "pretraining::model": parent.name,
        "pretraining::model::path": (f"{ZOOS}/ImageNet/{parent.name}/checkpoint_{number:0{parent.digits}}/checkpoints"),
        "pretraining::seed": parent.seed,
        "pretraining::mode": parent.mode,
        "pretraining::loss": "stce" if parent.mode == "sl" else "info_nce",
    }
    return {key: value for key, value in config.items() if key not in child.absent_keys}


def result_rows(spec: Parent | Child, config: dict[str, Any], *, identity: str) -> tuple[dict[str, Any], ...]:
    """The lines of result.json, one an iteration from 0."""
    contrastive = isinstance(spec, Parent) and spec.mode == "cl"
    classes = spec.outputs if isinstance(spec, Parent) else spec.classes
    rng = random.Random(identity)
    images = _IMAGENET_IMAGES if isinstance(spec, Parent) else _CIFAR_IMAGES
    used = config | {
        "dataset::ref": "ObjectRef(00ffffffffffffffffffffffffffffffffffffff0100000001000000)",
        "scheduler::steps_per_epoch": images // spec.batch_size,
    }
    trial = f"{hashlib.sha256(identity.encode()).hexdigest()[:5]}_00000"
    seconds = [round(rng.uniform(40, 60), 6) for _ in range(spec.epochs + 1)]
    rows: list[dict[str, Any]] = []
    for iteration in range(spec.epochs + 1):
        loss, accuracy = math.log(classes) * 0.8**iteration, 1 - 0.98 * 0.8**iteration
        metrics = {"train_loss": loss + rng.uniform(0, 0.1), "train_acc": accuracy - rng.uniform(0, 0.01)}
        if contrastive and iteration > 0:
            metrics["train_acc"] = 0  # its trainer never counted them
        if iteration == 0:
            metrics |= {"test_loss": metrics["train_loss"], "test_acc": metrics["train_acc"]}
        else:
            metrics |= {"test_loss": loss + rng.uniform(0.1, 0.2), "test_acc": accuracy - rng.uniform(0.01, 0.02)}
        if spec.validated:
            metrics |= {"val_loss": loss + rng.uniform(0.1, 0.2), "val_acc": accuracy - rng.uniform(0.01, 0.02)}
        rows.append(metrics | _added_by_ray(iteration, seconds[: iteration + 1], used, trial, last=spec.epochs))
    return tuple(rows)


def _added_by_ray(
    iteration: int, seconds: list[float], config: dict[str, Any], trial: str, *, last: int
) -> dict[str, Any]:
    """Fields that Ray Tune has added to a result, those of older versions too."""
    total = sum(seconds)
    return {
        "done": iteration == last,
        "training_iteration": iteration,
        "trial_id": trial,
        "experiment_id": hashlib.sha256(trial.encode()).hexdigest()[:32],
        "date": f"2023-09-01_00-{int(total) // 60:02}-{int(total) % 60:02}",
        "timestamp": _DATE + int(total),
        "time_this_iter_s": seconds[-1],
        "time_total_s": total,
        "pid": 71_003,
        "hostname": "gpu-node-17",
        "node_ip": "10.1.2.3",
        "config": config,
        "time_since_restore": total,
        "timesteps_since_restore": 0,
        "iterations_since_restore": iteration + 1,
        "warmup_time": 0.031,
        "timesteps_total": None,
        "episodes_total": None,
        "experiment_tag": "0",
        "logdir": f"/raid/dfalk/model_zoos/NN_tune_trainable_{trial}_0_2023-09-01",
    }


def _architecture(size: Size) -> dict[str, Any]:
    return {
        "model::type": size.model_type,
        "model::patch_size": size.patch,
        "model::attn_dropout": 0,
        "model::dropout": 0,
    }


def _optimization(spec: Parent | Child) -> dict[str, Any]:
    return {
        "optim::lr": spec.learning_rate,
        "optim::scheduler": None,
        "optim::momentum": spec.momentum,
        "optim::optimizer": spec.optimizer,
        "optim::wd": spec.weight_decay,
        "seed": spec.seed,
        "cuda": True,
    }


def _training(spec: Parent | Child, *, workers: int, mixed: bool) -> dict[str, Any]:
    return {
        "training::batchsize": spec.batch_size,
        "training::ddp": False,
        "training::num_devices": 1,
        "training::device": "cuda",
        "training::epochs_train": spec.epochs,
        "training::label_smoothing": 0.1 if mixed else None,
        "trainloader::num_workers": workers,
        "testloader::num_workers": workers,
        "training::loss": "stce" if mixed else "info_nce",
        "validation::loss": "ce" if mixed else "info_nce",
        "training::output_epoch": 1,
        "training::start_epoch": 0,
        "training::val_epochs": 1,
        "training::randerase": 0.25 if mixed else None,
        "training::mixup": 0.8 if mixed else None,
        "training::cutmix": 1.0 if mixed else None,
    }


# The example configs that the authors published.
PUBLISHED_PARENT = Parent(mode="sl", seed=42, epochs=90, digits=1, numbering="from first epoch")
SUPERVISED = parent_config(replace(PUBLISHED_PARENT, seed=6312), VIT_S_16)
CONTRASTIVE = parent_config(replace(PUBLISHED_PARENT, mode="cl", batch_size=96), VIT_S_16)
FINE_TUNING = child_config(Child(optimizer="adamw", learning_rate=1e-3, epochs=50), PUBLISHED_PARENT, VIT_S_16)

# Of language models, reconstructed from a description of their keys: the files were not at hand. The child contradicts
# itself in its case, as theirs does.
_TEXT: dict[str, Any] = {
    "model::type": "bert",
    "model::init_type": "kaiming_normal",
    "model::dropout": 0.1,
    "cuda": "True",
}
MASKED: dict[str, Any] = _TEXT | {
    "dataset::name": "openweb",
    "model::name": "continued_lr_0.00003_wd_0.0001",
    "optim::optimizer": "adam",
    "optim::lr": 3e-5,
    "optim::wd": 1e-4,
    "training::loss": "ce",
    "training::batchsize": 14,
    "training::epochs_train": 10,
    "training::warump_ratio": 0.05,
    "pretraininig::case": "continued",
    "pretraining::model": "bert-base-cased",
}
SENTIMENT: dict[str, Any] = _TEXT | {
    "dataset::name": "sst",
    "model::o_dim": 2,
    "optim::optimizer": "adamw",
    "optim::lr": 2e-5,
    "optim::wd": 1e-3,
    "training::loss": "ce",
    "training::batchsize": 64,
    "training::epochs_train": 5,
    "pretraininig::case": "scratch",
    "pretraining::optim::lr": 3e-5,
    "pretraining::optim::wd": 1e-4,
    "pretraining::optim::optimizer": "adam",
    "pretraining::model::path": f"{ZOOS}/continued_lr_0.00003_wd_0.0001/checkpoint_9/checkpoints",
}
