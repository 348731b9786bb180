"""What a user may get wrong, and what a hostile zoo may try: each a clear error of ours, and nothing is loaded.

Rule 5 of docs/decisions.md, item by item. The trainer's bad input is in tests/training/.
"""

import json
import os
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitzoo import VitZooConfig, VitZooModel, Zoo
from vitzoo.errors import (
    ConfigError,
    ConflictingArgumentsError,
    EpochNotFoundError,
    FormatVersionError,
    HubError,
    MemberIdError,
    MemberNotFoundError,
    RecordError,
    UnsafePathError,
    VitZooError,
    WeightsError,
    ZooNotFoundError,
)
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.tables.catalogue import build_tables

LINEAR, MLP = "pt-0/ft-0", "pt-0/ft-1"


@pytest.fixture
def zoo(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny zoo, to be damaged; the default one."""
    monkeypatch.setenv("VITZOO_ZOO", str(tiny_copy))
    return tiny_copy


NAMES = [  # what is asked for, the error, what its message says
    (["zoo/pt-x"], MemberIdError, '"zoo/pt-x" is not a member id; expected [<zoo>/]pt-<parent>'),
    (["zoo/pt-01"], MemberIdError, "no leading zeros"),
    (["zoo/pt-1/../../etc"], MemberIdError, '"zoo/pt-1/../../etc"'),
    (["zoo/pt-0/ft-0//x"], MemberIdError, "not a member id"),
    (["pt-01"], MemberIdError, '"pt-01" is not a member id'),
    (["pt-0/ft-x"], MemberIdError, '"pt-0/ft-x" is not a member id'),
    (["zoo/pt-0@"], MemberIdError, "not a member id"),
    (["zoo/pt-0@-1"], MemberIdError, "not a member id"),
    (["zoo"], MemberIdError, '"zoo" is a zoo, not a member of it: expected "zoo/pt-0"'),
    (["zoo", "pt-0/../pt-1"], MemberIdError, '"pt-0/../pt-1" is not a member of a zoo'),
    (["zoo", "elsewhere"], MemberIdError, '"elsewhere" is not a member of a zoo'),
    (["zoo/pt-9"], MemberNotFoundError, "has no member pt-9. Nearest: pt-2, pt-1, pt-0."),
    (["zoo/pt-0/ft-4"], MemberNotFoundError, "Nearest: pt-0/ft-3, pt-0/ft-2, pt-0/ft-1."),
    (["zoo/pt-0@3"], EpochNotFoundError, "pt-0 has no weights of epoch 3; expected a saved epoch: 0 to 2."),
    (["zoo/pt-0", "pt-1"], ConflictingArgumentsError, '"zoo/pt-0" names pt-0, but subfolder="pt-1"'),
]


@pytest.mark.parametrize(("name", "error", "says"), NAMES)
def test_a_name_that_leads_nowhere(zoo: Path, name: list[str], error: type[Exception], says: str) -> None:
    subfolder: dict[str, Any] = {"subfolder": name[1]} if len(name) > 1 else {}
    for loads in (VitZooModel.from_pretrained, VitZooConfig.from_pretrained):
        with pytest.raises(error, match=re.escape(says)):
            loads(name[0], **subfolder)


def test_two_epochs(zoo: Path) -> None:
    with pytest.raises(ConflictingArgumentsError, match="@1 and epoch=2"):
        VitZooModel.from_pretrained("zoo/pt-0@1", epoch=2)
    with pytest.raises(ConflictingArgumentsError, match=re.escape('epoch=1 and variant="epoch-02"')):
        VitZooModel.from_pretrained("zoo/pt-0", epoch=1, variant="epoch-02")
    with pytest.raises(MemberIdError, match=re.escape('variant="fp16" is not an epoch')):
        VitZooModel.from_pretrained("zoo/pt-0", variant="fp16")
    with pytest.raises(MemberIdError, match=re.escape('epoch=1 was asked of "./saved"')):
        VitZooModel.from_pretrained("./saved", epoch=1)
    with pytest.raises(ConflictingArgumentsError, match=re.escape('verify=True was asked of "./saved"')):
        VitZooModel.from_pretrained("./saved", verify=True)


def test_a_zoo_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooNotFoundError, match="make zoo") as raised:
        VitZooModel.from_pretrained("zoo/pt-0")
    assert str(tmp_path) in str(raised.value)
    monkeypatch.setenv("VITZOO_ZOO", "nowhere")
    with pytest.raises(ZooNotFoundError, match='VITZOO_ZOO is "nowhere", which is no zoo'):
        Zoo()
    for name in ("./nowhere/pt-0", "/nowhere/pt-0"):
        with pytest.raises(ZooNotFoundError, match=r"is not a zoo: it has no zoo\.json"):
            VitZooModel.from_pretrained(name)
    with pytest.raises(HubError, match=r"zoo\.json of org/name is not in the cache, and only the cache may be used"):
        VitZooModel.from_pretrained("org/name/pt-0/ft-1")
    with pytest.raises(FileNotFoundError):
        Zoo("nowhere")


def test_indexing_a_zoo(zoo: Path) -> None:
    opened = Zoo("zoo")
    with pytest.raises(KeyError, match="Nearest: pt-0/ft-3"):
        opened["pt-0/ft-33"]
    with pytest.raises(MemberIdError, match="expected pt-<parent>"):
        opened["zoo/pt-0"]
    with pytest.raises(VitZooError, match='part is "dev"'):
        opened[LINEAR].evaluate(part="dev")


class TestDamage:
    """Files that are not what they were."""

    def test_no_member_json(self, zoo: Path) -> None:
        (zoo / LINEAR / "member.json").unlink()
        with pytest.raises(RecordError, match=r"has no member\.json"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        assert LINEAR not in Zoo("zoo")

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
    def test_a_missing_file(self, zoo: Path, file: str) -> None:
        (zoo / LINEAR / file).unlink()
        with pytest.raises(RecordError, match=f"{file} is missing"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    @pytest.mark.parametrize("left", [0, 4, 100, -1])
    def test_truncated_weights_always(self, zoo: Path, left: int) -> None:
        file = unlinked(zoo / LINEAR / "model.safetensors")
        file.write_bytes(file.read_bytes()[:left])
        with pytest.raises(WeightsError, match=r"is truncated: it has \d+ bytes, the record of pt-0/ft-0 says \d+"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_altered_weights_when_asked(self, zoo: Path) -> None:
        file = unlinked(zoo / LINEAR / "model.safetensors")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        VitZooModel.from_pretrained(f"zoo/{LINEAR}", epoch=2, verify=True)
        with pytest.raises(WeightsError, match="was altered"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}", verify=True)
        with pytest.raises(WeightsError, match="was altered"):
            Zoo("zoo")[LINEAR].load(verify=True)

    def test_an_altered_header(self, zoo: Path) -> None:
        file = unlinked(zoo / LINEAR / "model.safetensors")
        content = bytearray(file.read_bytes())
        content[0:8] = struct.pack("<Q", 2**60)
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged safetensors file"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_weights_that_disagree_with_the_config(self, zoo: Path) -> None:
        member = Zoo("zoo")[LINEAR]
        tensors = load_file(zoo / LINEAR / "model.safetensors")
        for change, says in (
            (lambda t: t | {"classifier.bias": torch.zeros(5)}, r"classifier.bias is \[5\], the config says \[4\]"),
            (lambda t: {n: v for n, v in t.items() if n != "classifier.bias"}, "classifier.bias is missing"),
            (lambda t: t | {"classifier.more": torch.zeros(1)}, "classifier.more is not in the model"),
        ):
            replace_weights(zoo, member.id, change(tensors))
            with pytest.raises(WeightsError, match=says):
                VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_a_config_that_disagrees_with_the_weights(self, zoo: Path) -> None:
        edit(zoo / LINEAR / "config.json", num_hidden_layers=2)
        with pytest.raises(WeightsError, match=r"vit.encoder.layer.1.* is missing"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_a_newer_format(self, zoo: Path) -> None:
        edit(zoo / "zoo.json", format=2)
        with pytest.raises(FormatVersionError, match=r"has format 2; this vitzoo reads formats up to 1\. Upgrade"):
            VitZooModel.from_pretrained("zoo/pt-0")

    def test_a_record_of_another_member(self, zoo: Path) -> None:
        shutil.copy(zoo / MLP / "member.json", zoo / LINEAR / "member.json")
        with pytest.raises(RecordError, match='has id "pt-0/ft-1", but is in the folder of pt-0/ft-0'):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_no_figures(self, zoo: Path) -> None:
        (zoo / LINEAR / "metrics.jsonl").write_text("")
        with pytest.raises(RecordError, match=r"metrics\.jsonl is empty"):
            Zoo("zoo")[LINEAR].metrics_at()
        with pytest.raises(EpochNotFoundError, match="pt-0 has no metrics of epoch 9"):
            Zoo("zoo")["pt-0"].metrics_at(9)

    def test_another_revision_of_the_images(self, zoo: Path) -> None:
        edit(zoo / LINEAR / "member.json", dataset_fingerprint="0" * 64)
        with pytest.raises(VitZooError, match='with fingerprint "000000000000'):
            Zoo("zoo")[LINEAR].evaluate()


class TestHostile:
    """A zoo from somebody who means harm."""

    def test_a_pickle_beside_is_never_read(self, zoo: Path, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "harm"),))

        torch.save({"x": Harm()}, zoo / LINEAR / "pytorch_model.bin")
        VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        (zoo / LINEAR / "model.safetensors").unlink()
        with pytest.raises(RecordError, match=r"model.safetensors is missing"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        with pytest.raises(ConflictingArgumentsError, match="use_safetensors=False"):
            VitZooModel.from_pretrained(f"zoo/{MLP}", use_safetensors=False)
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize(
        "key",
        [
            *("auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "_name_or_path"),
            *("configuration_files", "fusion_config", "transformers_weights", "per_layer_config", "adapter_config"),
            *("base_model_name_or_path", "kernel_config", "custom_pipelines", "torch_dtype", "name_or_path"),
        ],
    )
    def test_config_keys_are_allow_listed(self, zoo: Path, key: str) -> None:
        for member in (LINEAR, MLP):
            edit(zoo / member / "config.json", **{key: "evil/kernel"})
            for loads in (VitZooModel.from_pretrained, VitZooConfig.from_pretrained):
                with pytest.raises(ConfigError, match=f'says "{key}", which no zoo member may say'):
                    loads(f"zoo/{member}")

    def test_remote_code_is_refused(self, zoo: Path) -> None:
        with pytest.raises(ConflictingArgumentsError, match="trust_remote_code=True"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}", trust_remote_code=True)
        with pytest.raises(ConflictingArgumentsError, match="trust_remote_code=True"):
            VitZooConfig.from_pretrained(f"zoo/{LINEAR}", trust_remote_code=True)
        VitZooModel.from_pretrained(f"zoo/{LINEAR}", trust_remote_code=False)

    @pytest.mark.parametrize("argument", ["state_dict", "key_mapping", "gguf_file", "quantization_config"])
    def test_arguments_that_change_what_is_loaded(self, zoo: Path, argument: str) -> None:
        arguments: Any = {argument: {".*": "x"}}
        with pytest.raises(ConflictingArgumentsError, match=f"{argument}= was given for a zoo member"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}", **arguments)

    def test_no_way_to_a_members_folder_goes_around_the_checks(
        self, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        edit(zoo / LINEAR / "config.json", auto_map="evil/code")
        (tmp_path / "link").symlink_to(zoo / LINEAR)
        ways: list[Any] = [
            f"zoo/{LINEAR}/",
            f"{zoo}/{LINEAR}/",
            f"./zoo/{LINEAR}",
            "link",
            "./link/",
            tmp_path / "link",
        ]
        for way in ways:
            for loads in (VitZooModel.from_pretrained, VitZooConfig.from_pretrained):
                with pytest.raises(ConfigError, match="auto_map"):
                    loads(way)
        monkeypatch.chdir(zoo / LINEAR)
        with pytest.raises(ConfigError, match="auto_map"):
            VitZooModel.from_pretrained(".")

    def test_adapters_and_shards_beside_are_never_read(self, zoo: Path) -> None:
        plain = VitZooModel.from_pretrained(f"zoo/{LINEAR}").state_dict()
        (zoo / LINEAR / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
        (zoo / LINEAR / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../../x"}}')
        loaded = VitZooModel.from_pretrained(f"zoo/{LINEAR}").state_dict()
        assert all(torch.equal(plain[name], loaded[name]) for name in plain)

    @pytest.mark.parametrize(
        ("layers", "error"), [(20_000, WeightsError), (2**20, WeightsError), (10**12, ConfigError)]
    )
    def test_nothing_is_allocated_for_a_huge_config(self, zoo: Path, layers: int, error: type[Exception]) -> None:
        edit(zoo / LINEAR / "config.json", num_hidden_layers=layers)
        with pytest.raises(error, match=r"does not hold what|expected 1 to"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_nothing_is_allocated_for_a_huge_width(self, zoo: Path) -> None:
        edit(zoo / LINEAR / "config.json", hidden_size=2**20, num_attention_heads=2)
        with pytest.raises(WeightsError, match="does not hold what"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json", "member.json"])
    def test_a_file_that_is_a_link_out(self, zoo: Path, tmp_path: Path, file: str) -> None:
        outside = tmp_path / "outside"
        (zoo / LINEAR / file).rename(outside)
        (zoo / LINEAR / file).symlink_to(outside)
        with pytest.raises(UnsafePathError, match="which is outside the zoo"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_a_folder_that_is_a_link_out(self, zoo: Path, tmp_path: Path) -> None:
        (zoo / LINEAR).rename(tmp_path / "outside")
        (zoo / LINEAR).symlink_to(tmp_path / "outside")
        with pytest.raises(UnsafePathError, match="which is outside the zoo"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        with pytest.raises(UnsafePathError):
            len(Zoo("zoo"))

    @pytest.mark.parametrize("file", ["metrics.jsonl", "preprocessor_config.json"])
    def test_records_that_are_links_out(self, zoo: Path, tmp_path: Path, file: str) -> None:
        (zoo / LINEAR / file).rename(tmp_path / "outside")
        (zoo / LINEAR / file).symlink_to(tmp_path / "outside")
        member = Zoo("zoo")[LINEAR]
        with pytest.raises(UnsafePathError):
            member.load_image_processor() if file.startswith("pre") else member.metrics
        if file == "metrics.jsonl":
            with pytest.raises(UnsafePathError):
                build_tables(Zoo("zoo").source)

    def test_a_link_inside_the_zoo_is_fine(self, zoo: Path) -> None:
        (zoo / LINEAR / "model.safetensors").unlink()
        (zoo / LINEAR / "model.safetensors").symlink_to("model.epoch-02.safetensors")
        VitZooModel.from_pretrained(f"zoo/{LINEAR}", verify=True)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"auto_map": {"AutoImageProcessor": "evil--x.y"}}, '"auto_map", which no zoo member may say'),
            ({"image_processor_type": "CLIPImageProcessor"}, "expected one of ViTImageProcessor"),
            ({"size": {"height": 10**9, "width": 8}}, "expected height and width of 1 to 4096"),
            ({"size": {"height": 16, "width": 8}}, "the model beside it takes 8 pixels and 3 channels"),
            ({"image_mean": [0.5]}, "the model beside it takes 8 pixels and 3 channels"),
            ({"size": {}}, "expected height and width"),
            ({"size": 8}, "expected height and width"),
            ({"image_mean": None}, "expected a number between 0 and 1 for each channel"),
            ({"image_mean": [0.5] * 5}, "for each channel"),
            ({"image_std": [0.0, 0.5, 0.5]}, "for each channel"),
            ({"image_std": ["x", 0.5, 0.5]}, "for each channel"),
            ({"resample": 99}, "expected one of PIL's filters"),
            ({"rescale_factor": 0.0039}, "expected 1/255"),
            ({"rescale_factor": "x"}, "expected 1/255"),
            ({"do_normalize": False}, "expected true"),
        ],
    )
    def test_image_processor(self, zoo: Path, change: dict[str, object], says: str) -> None:
        edit(zoo / LINEAR / "preprocessor_config.json", **change)
        with pytest.raises(ConfigError, match=says):
            Zoo("zoo")[LINEAR].load_image_processor()

    def test_weights_record_names_no_path(self, zoo: Path) -> None:
        record = json.loads((zoo / LINEAR / "member.json").read_text())
        record["weights"][0]["file"] = "../../../etc/passwd"
        (zoo / LINEAR / "member.json").write_text(json.dumps(record))
        with pytest.raises(RecordError, match=r"unknown field `file` - at `\$\.weights\[0\]`"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")


def unlinked(file: Path) -> Path:
    """The file by itself: the last epoch's is another name of the same bytes."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    return file


def edit(file: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def replace_weights(zoo: Path, member: MemberId, tensors: dict[str, torch.Tensor]) -> None:
    """Write other weights, and a record that agrees with their size."""
    file = zoo / layout.weights_file(member)
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    record = json.loads((zoo / layout.member_file(member)).read_text())
    record["weights"][-1]["size"] = file.stat().st_size
    (zoo / layout.member_file(member)).write_text(json.dumps(record))
