"""PEFT on members: a LoRA adapter is trained, saved, loaded again on the right weights, and merged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model

from tests.hub.server import Hub
from tests.published import REPO, plant
from vitzoo import VitZooModel

PIXELS = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file", "ignore:`is_gradient_checkpointing`")


def adapted(name: str, folder: Path) -> Any:
    """Train a LoRA adapter on a member for one step, and save it."""
    model = VitZooModel.from_pretrained(name)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"], init_lora_weights=False)
    peft: Any = get_peft_model(model, config)
    before = {name: parameter.detach().clone() for name, parameter in peft.named_parameters()}
    optimizer = torch.optim.SGD([p for p in peft.parameters() if p.requires_grad], lr=0.1)
    peft.train()(PIXELS).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, parameter in peft.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("lora_A" in name for name in changed)
    assert all("lora_" in name or "modules_to_save" in name for name in changed)
    peft.save_pretrained(folder)
    return peft.eval()


@pytest.mark.parametrize("member", ["pt-0/ft-0", "pt-0/ft-1", "pt-2"])
@pytest.mark.parametrize("epoch", ["", "@1"])
def test_an_adapter_of_a_member_is_saved_loaded_and_merged(
    tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, epoch: str
) -> None:
    monkeypatch.setenv("VITZOO_ZOO", str(tiny_zoo))
    model = adapted(f"zoo/{member}{epoch}", tmp_path / "adapter")
    with torch.no_grad():
        monkeypatch.delenv("VITZOO_ZOO")  # the adapter names its base by the absolute path
        expected = model(PIXELS).logits
        named = json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
        assert named == f"{tiny_zoo}/{member}{epoch}"
        again: Any = AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=["vitzoo"])
        by_hand = PeftModel.from_pretrained(VitZooModel.from_pretrained(named), tmp_path / "adapter")
        for loaded in (again.eval(), by_hand.eval()):
            assert torch.equal(loaded(PIXELS).logits, expected)
        merged = again.merge_and_unload()
        assert type(merged) is VitZooModel
        torch.testing.assert_close(merged(PIXELS).logits, expected)
        merged.save_pretrained(tmp_path / "merged")
        assert torch.equal(VitZooModel.from_pretrained(tmp_path / "merged")(PIXELS).logits, merged(PIXELS).logits)


def test_an_adapter_of_a_hub_member_names_the_repo(hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
    plant(hub, tiny_zoo)
    name = f"{REPO}/pt-0/ft-1@1"
    model = adapted(name, tmp_path / "adapter")
    assert f"base_model: {REPO}\n" in (tmp_path / "adapter/README.md").read_text()
    again: Any = PeftModel.from_pretrained(VitZooModel.from_pretrained(name), tmp_path / "adapter")
    assert torch.equal(again.eval()(PIXELS).logits, model(PIXELS).logits)
