"""Members in the hands of transformers, accelerate, safetensors and torch: Trainer, Auto classes, checkpoints, saving.

Each test takes a linear head, an MLP head and an embedding.
"""

import shutil
from pathlib import Path
from typing import Any

import accelerate
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    ViTForImageClassification,
)
from transformers.trainer_utils import load_sharded_checkpoint

from vitzoo import MemberId, VitZooConfig, VitZooModel, Zoo
from vitzoo.architectures import disk_name, memory_name
from vitzoo.errors import MemberOverwriteError, WeightsError
from vitzoo.interop.timm import to_timm

HEADS = ["pt-0/ft-0", "pt-0/ft-1", "pt-2"]  # linear, MLP, embedding
# Three tests of one code path: the slow tests run the other heads too.
ONE_HEAD = [HEADS[1], *(pytest.param(head, marks=pytest.mark.slow) for head in (HEADS[0], HEADS[2]))]
NAMES = {0: "cat", 1: "dog", 2: "eel"}
NEW_HEAD: dict[str, Any] = {"id2label": NAMES, "ignore_mismatched_sizes": True}


def assert_equal(model: nn.Module, expected: dict[str, Tensor]) -> None:
    """Compare all tensors of a model with those of a file, in either spelling of the names."""
    state = {disk_name(name): tensor for name, tensor in model.state_dict().items()}
    expected = {disk_name(name): tensor for name, tensor in expected.items()}
    assert state.keys() == expected.keys()
    assert [name for name in state if not torch.equal(state[name], expected[name])] == []


def rows() -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(3, 8, 8, generator=random), "labels": number % 3} for number in range(8)]


def trainer(model: PreTrainedModel, folder: Path, *, steps: int, **arguments: Any) -> Trainer:
    metrics = arguments.pop("compute_metrics", None)
    given = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        **{"dataloader_pin_memory": False, **arguments},
    )
    examples: Any = rows()
    return Trainer(model=model, args=given, train_dataset=examples, eval_dataset=examples, compute_metrics=metrics)


class TestTrainer:
    @pytest.mark.parametrize("member", ONE_HEAD)
    def test_a_resumed_run_equals_an_uninterrupted_one(self, tiny_zoo: Path, tmp_path: Path, member: str) -> None:
        torch.manual_seed(0)
        whole = VitZooModel.from_pretrained(tiny_zoo / member, **NEW_HEAD)
        trainer(whole, tmp_path, steps=4).train()
        resumed = VitZooModel.from_pretrained(tiny_zoo / member, epoch=0, **NEW_HEAD)  # other weights
        trainer(resumed, tmp_path / "resumed", steps=4).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        assert_equal(resumed, load_file(tmp_path / "checkpoint-4/model.safetensors"))
        assert_equal(resumed, whole.state_dict())

    @pytest.mark.parametrize("member", ONE_HEAD)
    def test_the_best_model_is_loaded_whole(self, tiny_zoo: Path, tmp_path: Path, member: str) -> None:
        model = VitZooModel.from_pretrained(tiny_zoo / member, **NEW_HEAD)
        scores = iter([1.0, 0.0])  # the first checkpoint is the best
        run = trainer(
            model,
            tmp_path,
            steps=4,
            eval_strategy="steps",
            eval_steps=2,
            load_best_model_at_end=True,
            metric_for_best_model="score",
            greater_is_better=True,
            compute_metrics=lambda _: {"score": next(scores)},
        )
        run.train()
        assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
        assert_equal(model, load_file(tmp_path / "checkpoint-2/model.safetensors"))
        again = VitZooModel.from_pretrained(tmp_path / "checkpoint-2")
        assert_equal(again, model.state_dict())
        assert (again.config.head_role, again.config.id2label) == ("classifier", NAMES)

    @pytest.mark.parametrize("member", ONE_HEAD)
    def test_a_member_is_no_output_folder(self, tiny_copy: Path, member: str) -> None:
        model = VitZooModel.from_pretrained(tiny_copy / member, **NEW_HEAD)
        with pytest.raises(MemberOverwriteError) as error:
            trainer(model, tiny_copy / member, steps=2).train()
        assert error.value.member == MemberId.parse(member)


@pytest.mark.parametrize("member", HEADS)
class TestAutoClasses:
    def test_load_config_processor_and_model(self, tiny_zoo: Path, member: str) -> None:
        expected = load_file(tiny_zoo / member / "model.safetensors")
        for arguments in ((tiny_zoo / member, {}), (tiny_zoo, {"subfolder": member})):
            folder, subfolder = arguments
            assert AutoConfig.from_pretrained(folder, **subfolder).hidden_size == 16
            assert AutoImageProcessor.from_pretrained(folder, **subfolder).size == {"height": 8, "width": 8}
            assert_equal(AutoModelForImageClassification.from_pretrained(folder, **subfolder), expected)

    def test_give_the_backbone(self, tiny_zoo: Path, tmp_path: Path, member: str) -> None:
        """The pooler is new, as transformers makes it for any ViT."""
        member_model = VitZooModel.from_pretrained(tiny_zoo / member)
        backbone = AutoModel.from_pretrained(tiny_zoo, subfolder=member)
        backbone.save_pretrained(tmp_path)
        pixels = torch.stack([row["pixel_values"] for row in rows()])
        for model in (backbone, AutoModel.from_pretrained(tmp_path)):
            state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pooler.")}
            assert_equal(model_of(state), member_model.vit.state_dict())
            with torch.no_grad():
                assert torch.equal(model(pixels).last_hidden_state, member_model.vit(pixels).last_hidden_state)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"id2label": NAMES},
            {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}},
            {"num_labels": 3, "label2id": {name: number for number, name in NAMES.items()}},
        ],
    )
    def test_a_fine_tuned_member_keeps_its_classes(
        self, tiny_zoo: Path, tmp_path: Path, member: str, arguments: dict[str, Any]
    ) -> None:
        auto = AutoModelForImageClassification.from_pretrained(
            tiny_zoo, subfolder=member, ignore_mismatched_sizes=True, **arguments
        )
        auto.save_pretrained(tmp_path / "tuned")
        VitZooModel.from_pretrained(tmp_path / "tuned").save_pretrained(tmp_path / "again")
        for folder in (tmp_path / "tuned", tmp_path / "again"):
            model = VitZooModel.from_pretrained(folder)
            assert (model.config.head_role, model.config.id2label) == ("classifier", NAMES)
            assert model(torch.zeros(1, 3, 8, 8), labels=torch.tensor([2])).loss > 0
            assert_equal(model, auto.state_dict())


def model_of(state: dict[str, Tensor]) -> nn.Module:
    """Return a module with these tensors, so that names of a state dict are compared as they are."""
    holder = nn.Module()
    for name, tensor in state.items():
        module = holder
        *path, last = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_buffer(last, tensor)
    return holder


def test_a_head_replaced_by_hand_is_a_classifier(tiny_zoo: Path, tmp_path: Path) -> None:
    for number, auto in enumerate((VitZooModel, AutoModelForImageClassification)):
        model: Any = auto.from_pretrained(tiny_zoo, subfolder="pt-2")
        model.classifier = nn.Linear(16, 3)
        model.config.num_labels = 3
        assert model(torch.zeros(1, 3, 8, 8), labels=torch.tensor([2])).loss > 0
        model.save_pretrained(tmp_path / str(number))
        again = VitZooModel.from_pretrained(tmp_path / str(number))
        assert (again.config.head_role, again.num_labels) == ("classifier", 3)
        assert_equal(again, model.state_dict())


@pytest.mark.parametrize("member", HEADS)
class TestCheckpoints:
    @pytest.fixture
    def saved(self, tiny_zoo: Path, tmp_path: Path, member: str) -> Path:
        VitZooModel.from_pretrained(tiny_zoo / member).save_pretrained(tmp_path)
        return tmp_path

    def test_are_loaded_whole(self, tiny_zoo: Path, saved: Path, member: str) -> None:
        expected = load_file(saved / "model.safetensors")
        loaders = [
            lambda model: model.load_state_dict(expected),
            lambda model: model.load_state_dict(expected, strict=False),
            lambda model: model.load_state_dict(expected, assign=True),
            lambda model: model.load_state_dict({memory_name(name): tensor for name, tensor in expected.items()}),
            lambda model: nn.DataParallel(model).load_state_dict({f"module.{n}": t for n, t in expected.items()}),
            lambda model: safetensors.torch.load_model(model, saved / "model.safetensors"),
        ]
        if member == HEADS[1]:  # these take a second each, for a collection of garbage
            VitZooModel.from_pretrained(tiny_zoo / member).save_pretrained(saved / "shards", max_shard_size="9KB")
            assert len(list((saved / "shards").glob("*.safetensors"))) > 1
            loaders += [
                lambda model: accelerate.load_checkpoint_in_model(model, saved),
                lambda model: accelerate.load_checkpoint_in_model(model, saved, strict=True),
                lambda model: load_sharded_checkpoint(model, str(saved / "shards"), strict=False),
            ]
        model: Any = None
        for load in loaders:
            model = VitZooModel.from_pretrained(tiny_zoo / member, epoch=0)  # other weights
            load(model)
            assert_equal(model, expected)
        with pytest.raises(RuntimeError, match=r"Missing key.*classifier"):
            model.load_state_dict({name: t for name, t in expected.items() if "classifier" not in name})

    def test_of_a_wrapped_model_are_refused_with_a_remedy(self, saved: Path, member: str) -> None:
        file = saved / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        for prefix in ("module.", "_orig_mod.", "_orig_mod.module.", "net."):
            save_file({prefix + name: tensor for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
            with pytest.raises(WeightsError) as error:
                VitZooModel.from_pretrained(saved)
            assert set(error.value.missing) == tensors.keys()
            assert f'"{prefix}"' in (error.value.fix or "")

    @pytest.mark.parametrize("new_head", [False, True])
    def test_without_some_tensors_are_refused(self, saved: Path, member: str, new_head: bool) -> None:
        tensors = load_file(saved / "model.safetensors")
        few = {name: tensor for name, tensor in tensors.items() if ".layer." not in name}  # 8 of 24, or 10 of 26
        save_file(few, saved / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError) as error:
            VitZooModel.from_pretrained(saved, ignore_mismatched_sizes=new_head)
        assert set(error.value.missing) == tensors.keys() - few.keys()
        assert error.value.path == saved

    def test_without_a_head_need_the_word_for_a_new_one(self, saved: Path, member: str) -> None:
        tensors = load_file(saved / "model.safetensors")
        few = {name: tensor for name, tensor in tensors.items() if "classifier" not in name}
        save_file(few, saved / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError) as error:
            VitZooModel.from_pretrained(saved)
        assert set(error.value.missing) == tensors.keys() - few.keys()
        loaded: Any = VitZooModel.from_pretrained(saved, ignore_mismatched_sizes=True, output_loading_info=True)
        model, info = loaded
        assert_equal(model_of({f"vit.{name}": t for name, t in model.vit.state_dict().items()}), few)
        assert {disk_name(name) for name in info["missing_keys"]} == tensors.keys() - few.keys()

    def test_of_another_size_are_refused(self, saved: Path, member: str) -> None:
        changes: list[dict[str, Any]] = [
            {"hidden_size": 32, "ignore_mismatched_sizes": True},
            {"num_hidden_layers": 3},
        ]
        for arguments in changes:
            with pytest.raises(WeightsError) as error:
                VitZooModel.from_pretrained(saved, **arguments)
            assert error.value.missing


def test_a_backbone_loads_a_checkpoint_whole_or_not_at_all(tiny_zoo: Path, tmp_path: Path) -> None:
    """AutoModel gives an MLP member vitzoo's own class, with transformers' other names on disk and in memory."""
    AutoModel.from_pretrained(tiny_zoo, subfolder="pt-0/ft-1").save_pretrained(tmp_path)
    expected = load_file(tmp_path / "model.safetensors")
    for load in (
        lambda model: model.load_state_dict(expected),
        lambda model: safetensors.torch.load_model(model, tmp_path / "model.safetensors"),
    ):
        backbone = AutoModel.from_pretrained(tiny_zoo, subfolder="pt-0/ft-1", variant="epoch-00")  # other weights
        load(backbone)
        tensors = {f"vit.{name}": tensor for name, tensor in backbone.state_dict().items()}
        assert_equal(model_of(tensors), {f"vit.{name}": tensor for name, tensor in expected.items()})
    few = {name: tensor.clone() for name, tensor in expected.items() if ".layer." not in name}
    save_file(few, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError) as error:
        AutoModel.from_pretrained(tmp_path)
    assert set(error.value.missing) == {f"vit.{name}" for name in expected.keys() - few.keys()}


def test_a_new_head_keeps_the_layers_that_fit(tiny_zoo: Path) -> None:
    """An MLP head with another number of outputs has a new second layer."""
    member = tiny_zoo / "pt-0/ft-1"
    old = load_file(member / "model.safetensors")
    for folder in (member, shutil.copytree(member, Path("copy"))):
        head: Any = VitZooModel.from_pretrained(folder, num_labels=1, ignore_mismatched_sizes=True).classifier
        assert torch.equal(head.fc1.weight, old["classifier.fc1.weight"])
        assert torch.equal(head.fc1.bias, old["classifier.fc1.bias"])
        assert head.fc2.weight.shape == (1, 8)


@pytest.mark.parametrize("member", HEADS)
def test_a_wrapped_model_is_converted_to_timm(tiny_zoo: Path, member: str) -> None:
    model: Any = VitZooModel.from_pretrained(tiny_zoo / member)
    expected = to_timm(model)
    compiled: Any = torch.compile(model, backend="eager")
    for wrapped in (compiled, nn.DataParallel(model), nn.DataParallel(compiled)):
        found = to_timm(wrapped)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("member", HEADS)
class TestSaving:
    def test_over_a_member_is_refused(self, tiny_copy: Path, member: str) -> None:
        folder = tiny_copy / member
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        model = VitZooModel.from_pretrained(folder)
        processor = Zoo(tiny_copy)[member].load_image_processor()
        config = VitZooConfig.from_pretrained(folder)
        backbone = AutoModel.from_pretrained(tiny_copy / "pt-0/ft-1")
        Path("link").symlink_to(folder)
        for target in (folder, str(folder), folder / "tuned", "link", f"{folder}/../{folder.name}"):
            for part in (model, config, processor, backbone):
                with pytest.raises(MemberOverwriteError) as error:
                    part.save_pretrained(target)
                assert error.value.member == MemberId.parse(member)
        with pytest.raises(MemberOverwriteError):
            model.save_pretrained(folder, variant="mine")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_elsewhere_works(self, tiny_copy: Path, member: str) -> None:
        model = VitZooModel.from_pretrained(tiny_copy / member)
        processor = Zoo(tiny_copy)[member].load_image_processor()
        for target in (tiny_copy / "tuned", Path("pt-0"), Path("zoo-2/pt-0/ft-0")):
            model.save_pretrained(target)
            processor.save_pretrained(target)
            assert_equal(VitZooModel.from_pretrained(target), model.state_dict())
            saved = (target / "preprocessor_config.json").read_text()
            assert saved == (tiny_copy / member / "preprocessor_config.json").read_text()


@pytest.mark.filterwarnings("ignore:.*pin_memory")  # the guide is also for a machine with a GPU
def test_the_guide_to_fine_tuning_runs(
    tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VITZOO_ZOO", str(tiny_zoo))
    text = (Path(__file__).parents[2] / "docs/guides/fine-tune.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    exec(compile(code.replace("pt-10", "pt-2"), "fine-tune.md", "exec"), {})
    assert "classifier nine" in capsys.readouterr().out


def test_the_folder_of_a_future_member_is_refused(tiny_copy: Path) -> None:
    model = VitZooModel.from_pretrained(tiny_copy / "pt-0")
    for target in ("pt-99", "pt-0/ft-99"):
        with pytest.raises(MemberOverwriteError) as error:
            model.save_pretrained(tiny_copy / target)
        assert error.value.member == MemberId.parse(target)


def test_a_plain_vit_loads_a_checkpoint_by_from_pretrained_alone(tiny_zoo: Path) -> None:
    """As the guide says: transformers' own class takes 8 of 24 tensors of a file in load_state_dict."""
    plain = ViTForImageClassification.from_pretrained(tiny_zoo / "pt-0/ft-0")
    tensors = load_file(tiny_zoo / "pt-0/ft-0/model.safetensors")
    assert len(plain.load_state_dict(tensors, strict=False).missing_keys) == len(tensors) - 8
    assert_equal(plain, tensors)
