"""Tests that need a GPU, and are skipped without one. On a machine without the other tests' packages run:

python -m pytest --noconftest -c /dev/null --rootdir . tests/gpu
"""

import contextlib
import gc
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.images.oracles import augment
from tests.tiny import CONTRASTIVE, FINE_TUNING, SUPERVISED, tiny
from training.images import loader
from training.images.loader import ImageBatches
from training.member import train
from training.member.checkpoint import HostCopy
from training.member.execution import Execution, prepare_process
from training.member.start import build_model
from training.member.step import Stepper, make_optimizer
from training.member.train import Watch, train_member
from training.random import Draw
from training.ranks import Ranks
from training.recipes.augmentation import Augmentation
from training.recipes.pipelines import CONTRASTIVE as CONTRASTIVE_VIEWS
from training.recipes.pipelines import FINE_TUNING as CIFAR_CROPS
from training.recipes.plan import PlannedMember, plan_members
from training.recipes.training import Training
from training.workspace import Workspace
from vitzoo.errors import TrainingError
from vitzoo.images import load_images

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ROOT = Path(__file__).parents[2]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIPELINES = [
    pytest.param(replace(CIFAR_CROPS, erasing=0.5, erasing_fill="noise"), 32, id="cifar"),
    pytest.param(CONTRASTIVE_VIEWS, 224, id="contrastive"),
    pytest.param(Augmentation(rotation=15.0, translate=0.1, scale=0.1, erasing=0.5), 8, id="digits"),
]


@contextlib.contextmanager
def no_synchronisation() -> Iterator[None]:
    """Raise an error if an operation inside waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def noise(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).byte()


def trainee(training: Training, device: str, *, compiled: bool = False) -> tuple[PlannedMember, Stepper, ImageBatches]:
    planned = replace(plan_members(tiny())[0], training=training)
    if training.objective == "contrastive":
        planned = replace(planned, head=next(m.head for m in plan_members(tiny()) if m.head.role == "embedding"))
    if training.dataset.name == "digits-6-9":
        planned = replace(planned, head=replace(planned.head, outputs=4))
    dataset = load_images(training.dataset.images)
    model = build_model(planned, dataset.classes).train()
    nn.Module.to(model, torch.device(device))
    if compiled:
        model.base_model.compile(dynamic=False)
    stepper = Stepper(model, make_optimizer(training.optimizer, model), training)
    return planned, stepper, ImageBatches(planned, dataset.train, device=torch.device(device))


def losses_of(training: Training, device: str, *, compiled: bool = False) -> list[float]:
    _, stepper, batches = trainee(training, device, compiled=compiled)
    return [float(stepper(batch, step)) for step, batch in zip(range(6), batches.epoch(0), strict=False)]


def test_random_numbers_equal_those_of_the_cpu() -> None:
    samples = torch.arange(1000)
    drawn = [Draw(seed=7, epoch=3, samples=samples.to(device)).uniforms(64).cpu() for device in ("cpu", "cuda")]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(("augmentation", "side"), PIPELINES)
def test_augmentation_agrees_with_the_cpu(augmentation: Augmentation, side: int) -> None:
    images, samples = noise(16, side), torch.arange(16)
    here, there = (
        augment(
            images.to(device), augmentation, Draw(seed=1, epoch=2, samples=samples.to(device)), mean=MEAN, std=STD
        ).cpu()
        for device in ("cpu", "cuda")
    )
    level = 1 / 255 / min(STD)  # one grey level, as it is after normalising
    differs = ((here - there).abs() > 1e-4).float().mean()
    print(f"{differs:.2e} of the values differ, by at most {(here - there).abs().max() / level:.2f} grey levels")
    assert differs < 1e-2


@pytest.mark.parametrize("training", [SUPERVISED, CONTRASTIVE, FINE_TUNING], ids=["supervised", "contrastive", "mixed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_epoch_does_not_wait_for_the_device(
    training: Training, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "_CHUNK_BYTES", 1)  # or all steps of so small an epoch would be augmented before it
    monkeypatch.setattr(train, "_PROGRESS_SECONDS", 0.0)
    _, stepper, batches = trainee(replace(training, precision=precision, clip_norm=1.0), "cuda")  # type: ignore[arg-type]
    for step, batch in enumerate(batches.epoch(0)):  # makes tensors that later epochs reuse
        stepper(batch, step)
    watched = Watch(
        torch.device("cuda"),
        first_step=0,
        units_per_step=training.batch_size,
        ranks=Ranks(),
        on_progress=lambda steps, loss, speed: None,
    )
    epoch = batches.epoch(1)
    watched.step(stepper(next(epoch), 0))  # an epoch begins with its order
    with no_synchronisation():
        for step, batch in enumerate(epoch, start=1):
            watched.step(stepper(batch, step))
    watched.end()


@pytest.mark.parametrize(("augmentation", "side"), PIPELINES)
def test_augmentation_does_not_wait_for_the_device(augmentation: Augmentation, side: int) -> None:
    images, samples = noise(16, side).cuda(), torch.arange(16).cuda()

    def changed(epoch: int) -> None:
        augment(images, augmentation, Draw(seed=1, epoch=epoch, samples=samples), mean=MEAN, std=STD)

    changed(0)
    with no_synchronisation():
        changed(1)


@pytest.mark.parametrize("training", [SUPERVISED, CONTRASTIVE, FINE_TUNING], ids=["supervised", "contrastive", "mixed"])
def test_steps_agree_with_the_cpu(training: Training) -> None:
    prepare_process(Execution())
    assert losses_of(training, "cuda") == pytest.approx(losses_of(training, "cpu"), rel=1e-3)


def test_compiled_steps_agree_with_eager_ones_to_rounding() -> None:
    eager, compiled = (losses_of(SUPERVISED, "cuda", compiled=compiled) for compiled in (False, True))
    assert compiled == pytest.approx(eager, rel=1e-3)


def test_host_copy_keeps_the_values_of_its_moment() -> None:
    weights = torch.zeros(2**24, device="cuda")
    for number in range(1, 20):
        weights.add_(1)
        copy = HostCopy({"w": weights})
        weights.add_(100).sub_(100)
        assert copy.wait()["w"].eq(number).all()


@pytest.mark.parametrize("compiled", ["none", "default"])
def test_deterministic_runs_give_equal_bits(compiled: str, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from training.environment import fix_environment\nfix_environment()\n"
        "from tests.tiny import tiny\nfrom training.member.execution import Execution, prepare_process\n"
        "from training.member.train import Watch, train_member\nfrom training.recipes.plan import plan_members\n"
        "from training.workspace import Workspace\n"
        f"execution = Execution(compile={compiled!r}, deterministic=True)\nprepare_process(execution)\n"
        "workspace = Workspace(Path(sys.argv[1]), tiny())\n"
        "for planned in plan_members(tiny()):\n"
        "    if str(planned.id) in ('pt-0', 'pt-0/ft-0', 'pt-2'):\n"
        "        train_member(workspace, planned, execution=execution)\n"
    )
    for name in ("one", "two"):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], env=environment, check=True)
    for member in ("pt-0", "pt-0/ft-0", "pt-2"):
        one, two = (load_file(tmp_path / name / member / "model.safetensors") for name in ("one", "two"))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_out_of_memory_names_an_accumulation_that_fits(tmp_path: Path) -> None:
    recipe = tiny()
    parent = recipe.parents[0]
    training = replace(parent.training, batch_size=649)
    recipe = replace(
        recipe,
        architecture=replace(recipe.architecture, hidden_size=512, intermediate_size=4096, num_hidden_layers=8),
        parents=(replace(parent, training=training),),
    )
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((total - free + 1.5e9) / total)
    try:
        with pytest.raises(TrainingError) as error:
            train_member(Workspace(tmp_path, recipe), plan_members(recipe)[0])
        assert "649 images at a time" in error.value.problem
        advice = re.search(r"--accumulation (\d+)", error.value.fix or "")
        assert advice is not None
        execution = Execution(accumulation=int(advice[1]))
        train_member(Workspace(tmp_path, recipe), plan_members(recipe)[0], execution=execution)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
