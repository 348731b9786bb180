"""Mistakes of a user and attacks of a hostile zoo folder are VitZooErrors, and nothing is loaded.

See rule 5 of docs/decisions.md, and tests/sources/test_hub.py for the same over HTTP.
"""

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hub.server import Hub
from vitzoo import VitZooConfig, VitZooModel, Zoo, ZooModel
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
    """A copy of the tiny zoo as the default zoo, to be damaged."""
    monkeypatch.setenv("VITZOO_ZOO", str(tiny_copy))
    return tiny_copy


MALFORMED = [
    *(
        "zoo/pt-x",
        "zoo/pt-01",
        "zoo/pt-1/../../etc",
        "zoo/pt-0/ft-0//x",
        "pt-01",
        "pt-0/ft-x",
        "zoo/pt-0@",
        "zoo/pt-0@-1",
    ),
    "zoo",
]


def load_both(name: Any, error: type[VitZooError], word: str | None = None, **options: Any) -> Any:
    """Check that a model and a config refuse a name with one error, and return it."""
    for load in (VitZooConfig.from_pretrained, VitZooModel.from_pretrained):
        with pytest.raises(error, match=word) as raised:
            load(name, **options)
    return raised.value


def test_malformed_ids_are_refused(zoo: Path) -> None:
    for name in MALFORMED:
        assert load_both(name, MemberIdError).text == name
    for subfolder in ("pt-0/../pt-1", "elsewhere"):
        assert load_both("zoo", MemberIdError, subfolder=subfolder).text == subfolder


def test_unknown_members_and_epochs_are_refused(zoo: Path) -> None:
    error = load_both("zoo/pt-9", MemberNotFoundError)
    assert (error.member, error.fix) == (MemberId(9), "Nearest: pt-2, pt-1, pt-0.")
    assert load_both("zoo/pt-0/ft-4", MemberNotFoundError).fix == "Nearest: pt-0/ft-3, pt-0/ft-2, pt-0/ft-1."
    error = load_both("zoo/pt-0@3", EpochNotFoundError)
    assert (error.epoch, error.expected) == (3, "a saved epoch: 0 to 2")
    opened = Zoo("zoo")
    with pytest.raises(KeyError, match="Nearest: pt-0/ft-3"):
        opened["pt-0/ft-33"]
    with pytest.raises(MemberIdError):
        opened["zoo/pt-0"]
    with pytest.raises(VitZooError, match="dev"):
        opened[LINEAR].evaluate(part="dev")


@pytest.mark.parametrize(
    ("name", "options", "error", "word"),
    [
        ("zoo/pt-0", {"subfolder": "pt-1"}, ConflictingArgumentsError, 'subfolder="pt-1"'),
        ("zoo/pt-0@1", {"epoch": 2}, ConflictingArgumentsError, "@1 and epoch=2"),
        ("zoo/pt-0", {"epoch": 1, "variant": "epoch-02"}, ConflictingArgumentsError, 'epoch=1 and variant="epoch-02"'),
        ("zoo/pt-0", {"variant": "fp16"}, MemberIdError, 'variant="fp16"'),
        ("./saved", {"epoch": 1}, MemberIdError, "epoch=1"),
        ("./saved", {"verify": True}, ConflictingArgumentsError, "verify=True"),
    ],
)
def test_contradicting_arguments_are_refused(
    zoo: Path, name: str, options: dict[str, Any], error: type[VitZooError], word: str
) -> None:
    Path("saved").mkdir()
    with pytest.raises(error, match=word):
        VitZooModel.from_pretrained(name, **options)


def test_names_of_no_zoo_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooNotFoundError, match="make zoo") as raised:
        VitZooModel.from_pretrained("zoo/pt-0")
    assert (raised.value.zoo, str(tmp_path) in raised.value.problem) == ("zoo", True)
    monkeypatch.setenv("VITZOO_ZOO", "nowhere")
    with pytest.raises(ZooNotFoundError, match="VITZOO_ZOO") as raised:
        Zoo()
    assert raised.value.zoo == "nowhere"
    for name in ("./nowhere/pt-0", "/nowhere/pt-0"):
        with pytest.raises(ZooNotFoundError, match=r"zoo\.json"):
            VitZooModel.from_pretrained(name)
    with pytest.raises(HubError, match="only the cache may be used") as offline:
        VitZooModel.from_pretrained("org/name/pt-0/ft-1")
    assert (offline.value.repo, offline.value.status) == ("org/name", None)
    with pytest.raises(FileNotFoundError):
        Zoo("nowhere")


def test_typos_of_a_member_never_reach_the_hub(zoo: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, nearest in (
        *(("zo/pt-0/ft-1", "zoo"), ("zoo2/pt-0", "zoo"), ("./zo/pt-0@1", "zoo"), (zoo.parent / "zo/pt-0", "zoo")),
        *((str(zoo.parent / "zo"), "zoo"), ("./saved", ""), ("/missing/zoo", ""), ("/missing/pt-0", "")),
        *(("org/name/ft-0", ""), ("org/na--me/pt-0", ""), ("~/nowhere/pt-0", "")),
    ):
        error = load_both(name, ZooNotFoundError)
        assert issubclass(type(error), OSError)
        assert f"Nearest: {nearest}." in str(error.fix) if nearest else "make zoo" in str(error.fix)
    Path("my-zoo").symlink_to(zoo)
    for name in ("./zoo/pt-01", f"{zoo}/pt-O", zoo / "pt-0x", "my-zoo/pt-0/ft-O", "my-zoo/pt-0x"):
        assert "Nearest: pt-" in str(load_both(name, MemberIdError).fix)
    assert load_both("zoo2/pt-00", MemberIdError).text == "zoo2/pt-00"
    Path("my-zoo").unlink()
    assert load_both("./zoo/pt-9", MemberNotFoundError).fix == "Nearest: pt-2, pt-1, pt-0."
    monkeypatch.setenv("VITZOO_ZOO", str(zoo.rename(zoo.parent / "elsewhere")))
    assert "Nearest: zoo." in str(load_both("zo/pt-0", ZooNotFoundError).fix)
    for cls in (VitZooModel, VitZooConfig, ZooModel):
        with pytest.raises(ZooNotFoundError, match=r"Nearest: zoo\."):
            cls.from_pretrained("zoo2", subfolder="pt-0")
    assert not hub.requests


def test_a_tilde_means_the_home_folder(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(zoo.parent))
    expected = VitZooModel.from_pretrained(zoo / MLP)
    expected.save_pretrained(zoo.parent / "saved")
    names: list[Any] = [f"~/zoo/{MLP}", Path(f"~/zoo/{MLP}"), f"~/zoo/{MLP}/", f"~/zoo/{MLP}@2", "~/saved"]
    for model in (
        *(VitZooModel.from_pretrained(name) for name in names),
        VitZooModel.from_pretrained("~/zoo", subfolder=MLP),
    ):
        assert all(map(torch.equal, model.state_dict().values(), expected.state_dict().values()))
    monkeypatch.setenv("VITZOO_ZOO", "~/zoo")
    for opened in (Zoo(), Zoo("~/zoo"), Zoo(Path("~/zoo"))):
        assert opened.source.root == zoo


class TestDamage:
    def test_a_member_without_member_json_is_unfinished(self, zoo: Path) -> None:
        (zoo / LINEAR / "member.json").unlink()
        with pytest.raises(RecordError, match=r"member\.json"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        assert LINEAR not in Zoo("zoo")

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
    def test_a_missing_file_is_named(self, zoo: Path, file: str) -> None:
        (zoo / LINEAR / file).unlink()
        with pytest.raises(RecordError) as missing:
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        assert missing.value.path == zoo / LINEAR / file

    @pytest.mark.parametrize("left", [0, 100, -1])
    def test_truncated_weights_are_always_refused(self, zoo: Path, left: int) -> None:
        file = unlinked(zoo / LINEAR / "model.safetensors")
        file.write_bytes(file.read_bytes()[:left])
        with pytest.raises(WeightsError, match="is truncated") as truncated:
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        assert truncated.value.path == file

    def test_verify_refuses_altered_weights(self, zoo: Path) -> None:
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

    def test_an_altered_header_is_refused(self, zoo: Path) -> None:
        file = unlinked(zoo / LINEAR / "model.safetensors")
        content = bytearray(file.read_bytes())
        content[0:8] = struct.pack("<Q", 2**60)
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged safetensors file"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_weights_of_another_config_are_refused(self, zoo: Path) -> None:
        member = Zoo("zoo")[LINEAR]
        tensors = load_file(zoo / LINEAR / "model.safetensors")
        for change, word in (
            (lambda t: t | {"classifier.bias": torch.zeros(5)}, r"classifier.bias is \[5\], the config says \[4\]"),
            (lambda t: {n: v for n, v in t.items() if n != "classifier.bias"}, "classifier.bias is missing"),
            (lambda t: t | {"classifier.more": torch.zeros(1)}, "classifier.more is not in the model"),
        ):
            replace_weights(zoo, member.id, change(tensors))
            with pytest.raises(WeightsError, match=word):
                VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_a_newer_format_is_refused(self, zoo: Path) -> None:
        edit(zoo / "zoo.json", format=2)
        with pytest.raises(FormatVersionError) as newer:
            VitZooModel.from_pretrained("zoo/pt-0")
        assert (newer.value.found, newer.value.supported) == (2, 1)

    def test_a_record_of_another_member_is_refused(self, zoo: Path) -> None:
        shutil.copy(zoo / MLP / "member.json", zoo / LINEAR / "member.json")
        with pytest.raises(RecordError, match="pt-0/ft-1"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_missing_metrics_are_an_error(self, zoo: Path) -> None:
        (zoo / LINEAR / "metrics.jsonl").write_text("")
        with pytest.raises(RecordError, match=r"metrics\.jsonl is empty"):
            Zoo("zoo")[LINEAR].metrics_at()
        with pytest.raises(EpochNotFoundError) as missing:
            Zoo("zoo")["pt-0"].metrics_at(9)
        assert missing.value.epoch == 9

    def test_another_revision_of_the_images_is_refused(self, zoo: Path) -> None:
        edit(zoo / LINEAR / "member.json", dataset_fingerprint="0" * 64)
        with pytest.raises(VitZooError, match="000000000000"):
            Zoo("zoo")[LINEAR].evaluate()


class TestHostile:
    def test_a_pickle_is_never_read(self, zoo: Path, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "harm"),))

        torch.save({"x": Harm()}, zoo / LINEAR / "pytorch_model.bin")
        VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        (zoo / LINEAR / "model.safetensors").unlink()
        with pytest.raises(RecordError, match=r"model.safetensors is missing"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        with pytest.raises(ConflictingArgumentsError, match="use_safetensors="):
            VitZooModel.from_pretrained(f"zoo/{MLP}", use_safetensors=False)
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize("member", [LINEAR, MLP])
    def test_config_keys_are_allow_listed(self, zoo: Path, member: str) -> None:
        file = zoo / member / "config.json"
        sound = file.read_bytes()
        for key in (
            *("auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "_name_or_path"),
            *("configuration_files", "fusion_config", "transformers_weights", "per_layer_config", "adapter_config"),
            *("base_model_name_or_path", "kernel_config", "custom_pipelines", "torch_dtype", "name_or_path"),
        ):
            edit(file, **{key: "evil/kernel"})
            load_both(f"zoo/{member}", ConfigError, f'"{key}"')
            file.write_bytes(sound)

    def test_remote_code_is_refused(self, zoo: Path) -> None:
        load_both(f"zoo/{LINEAR}", ConflictingArgumentsError, "trust_remote_code=", trust_remote_code=True)
        VitZooModel.from_pretrained(f"zoo/{LINEAR}", trust_remote_code=False)

    @pytest.mark.parametrize("argument", ["state_dict", "key_mapping", "gguf_file", "quantization_config"])
    def test_arguments_that_change_the_weights_are_refused(self, zoo: Path, argument: str) -> None:
        arguments: Any = {argument: {".*": "x"}}
        with pytest.raises(ConflictingArgumentsError, match=f"{argument}="):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}", **arguments)

    def test_every_path_to_a_members_folder_is_checked(
        self, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        edit(zoo / LINEAR / "config.json", auto_map="evil/code")
        (tmp_path / "link").symlink_to(zoo / LINEAR)
        for path in (f"zoo/{LINEAR}/", f"{zoo}/{LINEAR}/", f"./zoo/{LINEAR}", "link", "./link/", tmp_path / "link"):
            load_both(path, ConfigError, "auto_map")
        monkeypatch.chdir(zoo / LINEAR)
        with pytest.raises(ConfigError, match="auto_map"):
            VitZooModel.from_pretrained(".")

    def test_adapters_and_shards_are_never_read(self, zoo: Path) -> None:
        plain = VitZooModel.from_pretrained(f"zoo/{LINEAR}").state_dict()
        (zoo / LINEAR / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
        (zoo / LINEAR / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../../x"}}')
        loaded = VitZooModel.from_pretrained(f"zoo/{LINEAR}").state_dict()
        assert all(torch.equal(plain[name], loaded[name]) for name in plain)

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"num_hidden_layers": 2}, WeightsError),
            ({"num_hidden_layers": 2**20}, WeightsError),
            ({"num_hidden_layers": 10**12}, ConfigError),
            ({"hidden_size": 2**20, "num_attention_heads": 2}, WeightsError),
        ],
    )
    def test_a_config_of_other_sizes_is_refused_before_memory_is_allocated(
        self, zoo: Path, changes: dict[str, int], error: type[Exception]
    ) -> None:
        edit(zoo / LINEAR / "config.json", **changes)
        with pytest.raises(error):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json", "member.json"])
    def test_a_file_that_links_out_is_refused(self, zoo: Path, tmp_path: Path, file: str) -> None:
        outside = tmp_path / "outside"
        (zoo / LINEAR / file).rename(outside)
        (zoo / LINEAR / file).symlink_to(outside)
        with pytest.raises(UnsafePathError, match="outside"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")

    def test_a_folder_that_links_out_is_refused(self, zoo: Path, tmp_path: Path) -> None:
        (zoo / LINEAR).rename(tmp_path / "outside")
        (zoo / LINEAR).symlink_to(tmp_path / "outside")
        with pytest.raises(UnsafePathError, match="outside"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")
        with pytest.raises(UnsafePathError):
            len(Zoo("zoo"))

    @pytest.mark.parametrize("file", ["metrics.jsonl", "preprocessor_config.json"])
    def test_records_that_link_out_are_refused(self, zoo: Path, tmp_path: Path, file: str) -> None:
        (zoo / LINEAR / file).rename(tmp_path / "outside")
        (zoo / LINEAR / file).symlink_to(tmp_path / "outside")
        member = Zoo("zoo")[LINEAR]
        with pytest.raises(UnsafePathError):
            member.load_image_processor() if file.startswith("pre") else member.metrics
        if file == "metrics.jsonl":
            with pytest.raises(UnsafePathError):
                build_tables(Zoo("zoo").source)

    def test_a_link_inside_the_zoo_is_followed(self, zoo: Path) -> None:
        (zoo / LINEAR / "model.safetensors").unlink()
        (zoo / LINEAR / "model.safetensors").symlink_to("model.epoch-02.safetensors")
        VitZooModel.from_pretrained(f"zoo/{LINEAR}", verify=True)

    @pytest.mark.parametrize(
        ("key", "values"),
        [
            ("auto_map", [{"AutoImageProcessor": "evil--x.y"}]),
            ("image_processor_type", ["CLIPImageProcessor"]),
            ("size", [{"height": 10**9, "width": 8}, {"height": 16, "width": 8}, {}, 8]),
            ("image_mean", [[0.5], None, [0.5] * 5]),
            ("image_std", [[0.0, 0.5, 0.5], ["x", 0.5, 0.5]]),
            ("resample", [99]),
            ("rescale_factor", [0.0039, "x"]),
            ("do_normalize", [False]),
        ],
    )
    def test_a_wrong_image_processor_is_refused(self, zoo: Path, key: str, values: list[object]) -> None:
        file = zoo / LINEAR / "preprocessor_config.json"
        for value in values:
            edit(file, **{key: value})
            with pytest.raises(ConfigError) as refused:
                Zoo("zoo")[LINEAR].load_image_processor()
            assert refused.value.path == file

    def test_a_weights_record_with_a_path_is_refused(self, zoo: Path) -> None:
        record = json.loads((zoo / LINEAR / "member.json").read_text())
        record["weights"][0]["file"] = "../../../etc/passwd"
        (zoo / LINEAR / "member.json").write_text(json.dumps(record))
        with pytest.raises(RecordError, match="`file`"):
            VitZooModel.from_pretrained(f"zoo/{LINEAR}")


def unlinked(file: Path) -> Path:
    """Give a file bytes of its own, without the last epoch's hard link."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    return file


def edit(file: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def replace_weights(zoo: Path, member: MemberId, tensors: dict[str, torch.Tensor]) -> None:
    """Write other weights, and their size into the record."""
    file = zoo / layout.weights_file(member)
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    record = json.loads((zoo / layout.member_file(member)).read_text())
    record["weights"][-1]["size"] = file.stat().st_size
    (zoo / layout.member_file(member)).write_text(json.dumps(record))
