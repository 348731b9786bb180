"""VitZooModel as a transformers model, loaded by every form of an id."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    ViTForImageClassification,
    ViTImageProcessorPil,
    pipeline,
)

from vitzoo import MemberId, MemberRef, VitZooConfig, VitZooModel, Zoo
from vitzoo.architectures import memory_name
from vitzoo.errors import ConflictingArgumentsError, EmbeddingHeadError, WeightsError
from vitzoo.images import ImageSplit

LINEAR, MLP, EMBEDDING = "pt-0/ft-0", "pt-0/ft-1", "pt-2"


@pytest.fixture
def zoo(tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny zoo, as the default one."""
    monkeypatch.setenv("VITZOO_ZOO", str(tiny_zoo))
    return tiny_zoo


def weights(zoo: Path, member: str, epoch: str = "") -> dict[str, Tensor]:
    """Read a member's file, with the names of a module."""
    file = zoo / member / f"model{epoch}.safetensors"
    return {memory_name(name): tensor for name, tensor in load_file(file).items()}


def assert_holds(model: PreTrainedModel, expected: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def test_every_form_of_an_id_loads_the_same_weights(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = MLP
    final, first = weights(zoo, member), weights(zoo, member, ".epoch-01")
    monkeypatch.chdir(zoo.parent)
    relative = f"./{zoo.name}"
    for name in (f"zoo/{member}", member, f"{relative}/{member}", f"{zoo}/{member}", zoo / member):
        model = VitZooModel.from_pretrained(name)
        assert_holds(model, final)
        assert not model.training
        assert_holds(VitZooModel.from_pretrained(name, epoch=1), first)
        assert_holds(VitZooModel.from_pretrained(name, variant="epoch-01", verify=True), first)
        assert VitZooConfig.from_pretrained(name, epoch=1).to_dict() == VitZooConfig.from_pretrained(name).to_dict()
    for name in (f"zoo/{member}@1", f"{member}@1", f"{relative}/{member}@1", Path(f"{zoo}/{member}@1")):
        assert_holds(VitZooModel.from_pretrained(name), first)
        assert_holds(VitZooModel.from_pretrained(name, epoch=1, variant="epoch-01"), first)
    for name in (MemberRef.parse(f"zoo/{member}@1"), f"{relative}/{member}/"):
        assert_holds(VitZooModel.from_pretrained(name, epoch=1), first)
    assert_holds(VitZooModel.from_pretrained(MemberId.parse(member)), final)
    for folder in ("zoo", relative, zoo, str(zoo), zoo.name):
        assert_holds(VitZooModel.from_pretrained(folder, subfolder=member), final)
        assert_holds(VitZooModel.from_pretrained(folder, subfolder=member, epoch=1), first)
        assert VitZooConfig.from_pretrained(folder, subfolder=member).num_labels == 4
    assert_holds(VitZooModel.from_pretrained(f"zoo/{member}", subfolder=member), final)
    assert VitZooModel.from_pretrained(f"zoo/{member}").config.name_or_path == f"{zoo}/{member}"


@pytest.mark.parametrize("member", [LINEAR, EMBEDDING])
def test_linear_heads_and_embeddings_load(zoo: Path, member: str) -> None:
    assert_holds(VitZooModel.from_pretrained(f"zoo/{member}"), weights(zoo, member))


def test_the_default_zoo_is_the_variable_then_the_folder(
    tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo").symlink_to(tiny_zoo)
    assert_holds(VitZooModel.from_pretrained("zoo/pt-0"), weights(tiny_zoo, "pt-0"))
    (tmp_path / "zoo").unlink()
    monkeypatch.setenv("VITZOO_ZOO", str(tiny_zoo))
    assert_holds(VitZooModel.from_pretrained("zoo/pt-1"), weights(tiny_zoo, "pt-1"))


def test_a_local_folder_wins_over_a_hub_repo_of_its_name(tiny_zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_zoo, tmp_path / "org/name")
    assert_holds(VitZooModel.from_pretrained(f"org/name/{MLP}@1"), weights(tiny_zoo, MLP, ".epoch-01"))
    assert_holds(VitZooModel.from_pretrained("org/name", subfolder=MLP), weights(tiny_zoo, MLP))
    (tmp_path / "mine").symlink_to(tmp_path / "org/name")
    assert_holds(VitZooModel.from_pretrained(f"mine/{MLP}@1"), weights(tiny_zoo, MLP, ".epoch-01"))


def test_other_names_go_to_transformers(tiny_zoo: Path, tmp_path: Path) -> None:
    model = VitZooModel.from_pretrained(tiny_zoo / MLP)
    for saved in ("saved-model", "pt-0"):  # a folder pt-0 outside a zoo is a saved model
        model.save_pretrained(tmp_path / saved)
        for name in (f"./{saved}", tmp_path / saved):
            assert_holds(VitZooModel.from_pretrained(name), model.state_dict())
    model.save_pretrained(tmp_path / "variants", variant="mine")
    assert_holds(VitZooModel.from_pretrained("variants", variant="mine"), model.state_dict())
    plain = ViTForImageClassification.from_pretrained(tiny_zoo / LINEAR)
    plain.save_pretrained(tmp_path / "plain")
    assert_holds(VitZooModel.from_pretrained("./plain"), plain.state_dict())


AUTO = """
import sys
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
for member in sys.argv[2:]:
    config = AutoConfig.from_pretrained(sys.argv[1], subfolder=member)
    processor = AutoImageProcessor.from_pretrained(sys.argv[1], subfolder=member)
    model = AutoModelForImageClassification.from_pretrained(sys.argv[1], subfolder=member, variant="epoch-01")
    assert "vitzoo" not in sys.modules
    total = float(sum(parameter.double().sum() for parameter in model.parameters()))
    print(type(config).__name__, type(processor).__name__, type(model).__name__, total, flush=True)
"""


@pytest.mark.slow  # a process that imports torch and transformers
def test_auto_classes_in_a_process_without_vitzoo(tiny_zoo: Path) -> None:
    """A plain ViT needs transformers alone, and an MLP head is refused."""
    command = [sys.executable, "-c", AUTO, str(tiny_zoo), LINEAR, EMBEDDING, MLP]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    for member, line in zip((LINEAR, EMBEDDING), done.stdout.splitlines(), strict=True):
        *classes, total = line.split()
        assert classes == ["ViTConfig", "ViTImageProcessorPil", "ViTForImageClassification"]
        expected = sum(float(tensor.double().sum()) for tensor in weights(tiny_zoo, member, ".epoch-01").values())
        assert float(total) == pytest.approx(expected, rel=1e-12)
    assert done.returncode != 0
    assert "`vitzoo`" in done.stderr


def test_auto_classes_with_vitzoo(tiny_zoo: Path) -> None:
    assert isinstance(AutoConfig.from_pretrained(tiny_zoo / MLP), VitZooConfig)
    assert isinstance(AutoImageProcessor.from_pretrained(tiny_zoo, subfolder=MLP), ViTImageProcessorPil)
    model = AutoModelForImageClassification.from_pretrained(tiny_zoo, subfolder=MLP, variant="epoch-02")
    assert_holds(model, weights(tiny_zoo, MLP))


def test_dtype_device_map_and_attention(zoo: Path) -> None:
    pixels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    reference = VitZooModel.from_pretrained(f"zoo/{MLP}")
    half = VitZooModel.from_pretrained(f"zoo/{MLP}", dtype=torch.bfloat16, device_map="cpu")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half.config.dtype == torch.bfloat16
    assert VitZooModel.from_pretrained(f"zoo/{MLP}", dtype="float64").dtype == torch.float64
    eager = VitZooModel.from_pretrained(f"zoo/{MLP}", attn_implementation="eager")
    assert (eager.config._attn_implementation, reference.config._attn_implementation) == ("eager", "sdpa")
    with torch.inference_mode():
        torch.testing.assert_close(eager(pixels).logits, reference(pixels).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("member", [LINEAR, MLP])
def test_labels_give_the_cross_entropy(zoo: Path, member: str) -> None:
    model = VitZooModel.from_pretrained(f"zoo/{member}")
    pixels = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    output = model(pixel_values=pixels, labels=labels)
    expected = -output.logits.log_softmax(1)[torch.arange(5), labels].mean()
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    gradient = model.vit.embeddings.cls_token.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_an_embedding_has_no_classes(zoo: Path) -> None:
    model = VitZooModel.from_pretrained(f"zoo/{EMBEDDING}")
    assert (model.config.head_role, model.config.num_labels) == ("embedding", 12)
    assert tuple(model(torch.zeros(2, 3, 8, 8)).logits.shape) == (2, 12)
    with pytest.raises(EmbeddingHeadError, match="width 12"):
        model(torch.zeros(2, 3, 8, 8), labels=torch.zeros(2, dtype=torch.long))
    processor = Zoo("zoo")[EMBEDDING].load_image_processor()
    with pytest.raises(EmbeddingHeadError, match="classes"):
        pipeline("image-classification", model=model, image_processor=processor)(Image.new("L", (8, 8)))


def test_a_new_head_for_other_classes(zoo: Path) -> None:
    for member in (LINEAR, MLP, EMBEDDING):
        loaded: Any = VitZooModel.from_pretrained(
            f"zoo/{member}", num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
        )
        model, info = loaded
        assert model(torch.zeros(1, 3, 8, 8)).logits.shape == (1, 7)
        assert {name.split(".")[0] for name, *_ in info["mismatched_keys"]} == {"classifier"}
        backbone = {name: t for name, t in weights(zoo, member).items() if not name.startswith("classifier")}
        assert_holds(model.vit, {name.removeprefix("vit."): tensor for name, tensor in backbone.items()})
        assert model.config.head_role == "classifier"
    mlp = VitZooModel.from_pretrained(
        "zoo/pt-2", num_labels=3, head_type="mlp", head_width=5, ignore_mismatched_sizes=True
    )
    assert mlp(torch.zeros(1, 3, 8, 8), labels=torch.tensor([2])).loss > 0


@pytest.mark.parametrize(
    "arguments",
    [{"num_labels": 7}, {"num_hidden_layers": 2}, {"num_hidden_layers": 2, "ignore_mismatched_sizes": True}],
)
def test_arguments_that_leave_weights_random_are_refused(zoo: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="does not fit the arguments given") as error:
        VitZooModel.from_pretrained(f"zoo/{LINEAR}", **arguments)
    assert error.value.path == zoo / LINEAR / "model.safetensors"


def test_the_same_number_of_labels_keeps_their_names(zoo: Path) -> None:
    for member in (LINEAR, MLP):
        model = VitZooModel.from_pretrained(f"zoo/{member}", num_labels=4)
        assert model.config.id2label == {0: "6", 1: "7", 2: "8", 3: "9"}


def test_overrides_are_checked(zoo: Path) -> None:
    with pytest.raises(Exception, match="head_type is 'mlpp'"):
        VitZooModel.from_pretrained(f"zoo/{LINEAR}", head_type="mlpp")


def test_a_given_config_is_used(zoo: Path) -> None:
    sibling = VitZooModel.from_pretrained(f"zoo/{LINEAR}", config=f"zoo/{LINEAR}@1")
    assert_holds(sibling, weights(zoo, LINEAR))
    config = VitZooConfig.from_pretrained(f"zoo/{MLP}")
    config.id2label = {0: "six", 1: "seven", 2: "eight", 3: "nine"}
    model = VitZooModel.from_pretrained(f"zoo/{MLP}", config=config)
    assert model.config.id2label == {0: "six", 1: "seven", 2: "eight", 3: "nine"}
    assert_holds(model, weights(zoo, MLP))


def test_revision_of_a_folder_is_refused(zoo: Path) -> None:
    spellings: list[tuple[Any, dict[str, Any]]] = [
        (f"zoo/{LINEAR}", {}),
        ("zoo", {"subfolder": LINEAR}),
        (zoo / LINEAR, {}),
    ]
    for name, arguments in spellings:
        for loads in (VitZooModel.from_pretrained, VitZooConfig.from_pretrained):
            with pytest.raises(ConflictingArgumentsError, match="revision"):
                loads(name, revision="main", **arguments)


class TestDigits:
    def test_pipeline_names_the_digit(self, digits_zoo: Path) -> None:
        member = Zoo(digits_zoo)["pt-12/ft-3"]
        classifier = pipeline(
            "image-classification", model=member.load(), image_processor=member.load_image_processor()
        )
        test = member.load_images().test
        assert isinstance(test, ImageSplit)
        digits = [Image.fromarray(image[0]) for image in test.images]
        named = [answers[0]["label"] for answers in classifier(digits)]
        right = sum(name == str(6 + label) for name, label in zip(named, test.labels, strict=True))
        assert set(named) <= {"6", "7", "8", "9"}
        assert right / len(named) == member.metrics[-1].test_accuracy

    def test_measured_and_recorded_accuracy_agree_exactly(self, digits_zoo: Path) -> None:
        zoo = Zoo(digits_zoo)
        for name in ("pt-3", "pt-12/ft-3", "pt-0/ft-7"):
            for epoch in (0, zoo[name].epochs[-1]):
                record = zoo[name].metrics[epoch]
                for part in ("train", "val", "test"):
                    measured = zoo[name].evaluate(part=part, epoch=epoch)
                    assert measured.accuracy == getattr(record, f"{part}_accuracy")
                    assert measured.loss == pytest.approx(getattr(record, f"{part}_loss"), rel=1e-5)

    def test_the_population_is_what_the_recipe_promises(self, digits_zoo: Path) -> None:
        zoo = Zoo(digits_zoo)
        children = [member for member in zoo if not member.id.is_parent]
        assert (len(zoo.parents), len(children)) == (13, 128)
        best = max(member.metrics[-1].val_accuracy or 0 for member in children)
        assert best > 0.9
        for factor in ("head_type", "optimizer", "learning_rate"):
            means = {}
            for member in children:
                means.setdefault(member.factors[factor], []).append(member.metrics[-1].val_accuracy)
            averages = [sum(values) / len(values) for values in means.values()]
            assert max(averages) - min(averages) > 0.01, factor
        size = sum(file.stat().st_blocks * 512 for file in digits_zoo.rglob("*") if file.name != "model.safetensors")
        assert size < 300e6
