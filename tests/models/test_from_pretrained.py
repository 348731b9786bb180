"""Names, bytes, reports and modes of loading: what other libraries see of a member that was loaded."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import PreTrainedModel, Trainer, TrainingArguments, ViTForImageClassification, pipeline
from transformers.utils import logging

from tests.published import manifest_of, zoo_files
from vitzoo import VitZooModel, Zoo
from vitzoo.errors import AuthenticityError, EmbeddingHeadError, WeightsError

LINEAR, MLP, EMBEDDING = "pt-0/ft-0", "pt-0/ft-1", "pt-2"
# Both of vitzoo's loaders: its own, and transformers'.
LOADERS: list[dict[str, Any]] = [{}, {"dtype": "float32"}]


def overwrite(file: Path) -> None:
    """Set the last tensor's numbers to zero, in place."""
    with open(file, "r+b") as opened:
        opened.seek(-64, os.SEEK_END)
        opened.write(bytes(64))


def authentic(folder: Path) -> Zoo:
    """Write a manifest, and open the zoo by its digest."""
    manifest = manifest_of(folder, zoo_files(folder))
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return Zoo(folder, digest=manifest.digest)


def copied(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def holds(model: PreTrainedModel, expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


class TestNames:
    @pytest.mark.parametrize("arguments", [*LOADERS, {"num_labels": 7, "ignore_mismatched_sizes": True}])
    def test_a_member_of_a_folder_is_named_by_its_absolute_path(
        self, tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
    ) -> None:
        monkeypatch.setenv("VITZOO_ZOO", str(tiny_zoo))
        monkeypatch.chdir(tiny_zoo.parent)
        folder = str(tiny_zoo / MLP)
        for name in (f"zoo/{MLP}", MLP, f"./{tiny_zoo.name}/{MLP}", folder, Path(folder)):
            model = VitZooModel.from_pretrained(name, **arguments)
            assert (model.name_or_path, model.config.name_or_path) == (folder, folder)
        for other in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other.origin.ref.zoo == str(tiny_zoo)
        # The name finds the same weights again, and Trainer takes the config's for a folder.
        model = VitZooModel.from_pretrained(f"zoo/{MLP}@1", **arguments)
        assert (model.name_or_path, model.config.name_or_path) == (f"{folder}@1", folder)

    def test_trainer_writes_no_base_model_for_a_folder(self, tiny_zoo: Path, tmp_path: Path) -> None:
        arguments = TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to=[])
        trainer = Trainer(model=VitZooModel.from_pretrained(f"{tiny_zoo}/{LINEAR}@1"), args=arguments)
        trainer.create_model_card()
        assert "base_model" not in (tmp_path / "out/README.md").read_text()

    def test_transformers_report_names_the_member(
        self, tiny_zoo: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logging.enable_propagation()
        monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
        VitZooModel.from_pretrained(f"{tiny_zoo}/{LINEAR}@1", num_labels=7, ignore_mismatched_sizes=True)
        logging.disable_propagation()
        assert f"from: {tiny_zoo}/{LINEAR}@1" in caplog.text


class TestBytes:
    @pytest.mark.parametrize("arguments", LOADERS)
    @pytest.mark.parametrize("own", [{"verify": True}, {"mmap": False}, {"disable_mmap": True}, "digest"])
    def test_a_file_overwritten_after_loading_changes_no_model(
        self, tiny_copy: Path, arguments: dict[str, Any], own: Any
    ) -> None:
        file = tiny_copy / LINEAR / "model.epoch-01.safetensors"
        if own == "digest":
            model = authentic(tiny_copy)[LINEAR].load(epoch=1, **arguments)
        else:
            model = VitZooModel.from_pretrained(tiny_copy / LINEAR, epoch=1, **own, **arguments)
        expected = copied(model)
        overwrite(file)
        assert holds(model, expected)
        os.truncate(file, 0)  # a mapped model would end the process
        assert holds(model, expected)

    def test_a_mapped_model_changes_with_its_file(self, tiny_copy: Path) -> None:
        """The default, as the guide to verification says."""
        model = VitZooModel.from_pretrained(tiny_copy / LINEAR, epoch=1)
        expected = copied(model)
        overwrite(tiny_copy / LINEAR / "model.epoch-01.safetensors")
        assert not holds(model, expected)

    def test_verify_compares_the_bytes_that_it_uses(self, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is exchanged between two reads is refused, or not used."""
        right = copied(VitZooModel.from_pretrained(tiny_copy / LINEAR, epoch=1, verify=True))
        read_bytes = Path.read_bytes

        def read_and_exchange(path: Path) -> bytes:
            content = read_bytes(path)
            if path.name.startswith("model."):
                overwrite(path)
            elif path.name == "config.json":
                path.write_text(json.dumps(json.loads(content) | {"layer_norm_eps": 0.5}))
            return content

        monkeypatch.setattr(Path, "read_bytes", read_and_exchange)
        model = VitZooModel.from_pretrained(tiny_copy / LINEAR, epoch=1, verify=True)
        assert holds(model, right)
        assert model.config.layer_norm_eps == 1e-6
        with pytest.raises(WeightsError, match="altered"):
            VitZooModel.from_pretrained(tiny_copy / LINEAR, epoch=1, verify=True)

    def test_a_digest_refuses_a_changed_config(self, tiny_copy: Path) -> None:
        zoo = authentic(tiny_copy)
        (tiny_copy / LINEAR / "config.json").write_text("{}")
        with pytest.raises(AuthenticityError):
            zoo[LINEAR].load()

    def test_mmap_false_is_handed_to_transformers_for_other_folders(self, tiny_zoo: Path, tmp_path: Path) -> None:
        saved = VitZooModel.from_pretrained(tiny_zoo / MLP)
        saved.save_pretrained(tmp_path / "saved")
        assert holds(VitZooModel.from_pretrained(tmp_path / "saved", mmap=False), copied(saved))


@pytest.mark.parametrize(
    "arguments",
    [
        *({}, {"verify": True}, {"mmap": False}, {"dtype": torch.bfloat16}, {"device_map": "cpu"}),
        {"num_labels": 7, "ignore_mismatched_sizes": True},
    ],
    ids=str,
)
def test_a_model_of_inference_mode_can_be_trained(tiny_zoo: Path, arguments: dict[str, Any]) -> None:
    with torch.inference_mode(), torch.no_grad():
        model = VitZooModel.from_pretrained(tiny_zoo / MLP, **arguments)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    model(torch.ones(1, 3, 8, 8, dtype=model.dtype)).logits.sum().backward()
    assert model.vit.embeddings.cls_token.grad is not None


def test_a_loop_over_members_prints_no_bars(
    tiny_zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", True)
    for arguments in LOADERS:
        VitZooModel.from_pretrained(tiny_zoo / LINEAR, **arguments)
    assert capsys.readouterr().err == ""
    ViTForImageClassification.from_pretrained(tiny_zoo / LINEAR)  # transformers' own are left alone
    assert "Loading weights" in capsys.readouterr().err


class TestPipelines:
    @pytest.mark.parametrize("member", [LINEAR, MLP])
    def test_a_classifier_answers_with_the_names_of_its_classes(self, tiny_zoo: Path, member: str) -> None:
        opened, image = Zoo(tiny_zoo)[member], Image.linear_gradient("L").resize((8, 8))
        model, processor = opened.load(), opened.load_image_processor()
        answers = pipeline("image-classification", model=model, image_processor=processor)(image)
        with torch.no_grad():
            scores = model(**processor(image.convert("RGB"), return_tensors="pt")).logits.softmax(1)[0]
        assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(
            {str(6 + number): float(score) for number, score in enumerate(scores)}
        )
        assert pipeline("image-classification", model=str(tiny_zoo / member))(image) == answers

    def test_an_embedding_gives_features_and_refuses_classes(self, tiny_zoo: Path) -> None:
        opened, image = Zoo(tiny_zoo)[EMBEDDING], Image.linear_gradient("L").resize((8, 8))
        model, processor = opened.load(), opened.load_image_processor()
        features: Any = pipeline("image-feature-extraction", model=model, image_processor=processor)(image)
        with torch.no_grad():
            expected = model(**processor(image.convert("RGB"), return_tensors="pt")).logits
        torch.testing.assert_close(torch.tensor(features), expected)
        with pytest.raises(EmbeddingHeadError):
            pipeline("image-classification", model=model, image_processor=processor)(image)
