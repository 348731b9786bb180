"""`vitzoo export`: folders that real timm and onnxruntime read, with the preprocessing of the member, or nothing."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.guides import print_guide
from tests.hub.server import Hub
from tests.interop.populations import write_csv
from tests.interop.test_timm import real_timm
from tests.published import plant
from vitzoo import VitZooConfig, VitZooModel, Zoo, ZooModel
from vitzoo.cli import main
from vitzoo.cli.export import write_folder
from vitzoo.errors import ConfigError, DownloadError, WeightsError
from vitzoo.interop.checkpoints.job import Import
from vitzoo.interop.checkpoints.run import import_checkpoints
from vitzoo.interop.timm import from_timm, to_timm, to_timm_module
from vitzoo.interop.timm_folder import architecture, timm_config

PROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 8, "width": 8},
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
}
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """The command in this process: exit status, and what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vitzoo", "export", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_timm_loads_what_is_exported(tiny_copy: Path, tmp_path: Path, export: Export) -> None:
    processor = tiny_copy / "pt-1/preprocessor_config.json"
    said = json.loads(processor.read_text())
    said |= {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
    processor.write_text(json.dumps(said | {"resample": 3, "image_std": [0.5, 0.25, 0.125]}))
    pairs = []
    for member in ("pt-0@1", "pt-1", "pt-2", "pt-0/ft-0@0"):  # two classifiers, an embedding, a child
        folder = tmp_path / "out" / member.replace("/", "-")
        code, out, err = export(str(tiny_copy / member), str(folder), "--to", "timm")
        assert code == 0, err
        assert out.splitlines() == [
            f"{tiny_copy / member} is in {folder}: config.json, model.safetensors",
            f'Load it: timm.create_model("local-dir:{folder}", pretrained=True)',
        ]
        pairs.append(f"{folder}={tiny_copy / member}")
    measured: dict[str, Any] = dict(
        zip(("pt-0", "pt-1", "pt-2", "child"), real_timm("folders", *pairs).values(), strict=True)
    )
    for name, found in measured.items():
        assert found["differences"].pop("size") > 0.01
        assert max(found["differences"].values()) <= 1e-5, name
        assert found["pixels"] <= 1e-6, name
        assert found["architecture"] == "vit_small_patch16_224"
        assert found["data"]["input_size"] == [3, 8, 8]
    # timm gives the members' logits with these folders, so imports with the members' bits have timm's logits.
    table = write_csv(tmp_path / "timm.csv", [{"location": tmp_path / "out/pt-1"}, {"location": tmp_path / "out/pt-2"}])
    assert import_checkpoints(Import(table=table, root=tmp_path / "imported")).skipped == {}
    for imported, member in (("pt-0", "pt-1"), ("pt-1", "pt-2")):
        ours = ZooModel.from_pretrained(tmp_path / "imported" / imported)
        theirs = ZooModel.from_pretrained(tiny_copy / member)
        assert ours.config.num_attention_heads == theirs.config.num_attention_heads
        assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    plain = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash", "std": [0.5] * 3}
    cut = {"interpolation": "bicubic", "crop_pct": 0.8, "crop_mode": "center", "std": [0.5, 0.25, 0.125]}
    for name, expected in (("pt-0", plain), ("pt-1", cut), ("pt-2", plain), ("child", plain)):
        assert {key: measured[name]["data"][key] for key in expected} == expected
    assert [measured[name]["labels"] for name in ("pt-0", "pt-2", "child")] == [list("012345"), None, list("6789")]


def test_language_model_is_refused_for_timm(bert_zoo: Path, export: Export) -> None:
    code, _, err = export(str(bert_zoo / "pt-0"), "out", "--to", "timm")
    assert code == 1
    assert "The model is a bert; expected a ViT" in " ".join(err.split())
    assert not Path("out").exists()
    model = Zoo(bert_zoo)["pt-0"].load()
    for convert in (to_timm, to_timm_module):
        with pytest.raises(ConfigError) as refused:
            convert(model)
        assert refused.value.key == "model_type"


@pytest.mark.slow
def test_language_model_is_written_for_onnxruntime_with_its_tokenizer(bert_zoo: Path, export: Export) -> None:
    code, out, err = export(str(bert_zoo / "pt-0/ft-1@1"), "out", "--to", "onnx")
    assert code == 0, err
    assert "any batch size and length" in out
    names = ["config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(os.listdir("out")) == names
    for name in set(names) - {"model.onnx"}:
        assert (Path("out") / name).read_bytes() == (bert_zoo / "pt-0/ft-1" / name).read_bytes()


def test_the_folder_of_timm(tiny_zoo: Path, tmp_path: Path, export: Export) -> None:
    code, _, err = export(str(tiny_zoo / "pt-0/ft-0"), "out", "--to", "timm")
    assert code == 0, err
    model = Zoo(tiny_zoo)["pt-0/ft-0"].load()
    with safe_open("out/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    state = load_file("out/model.safetensors")
    assert {name: (state[name] == tensor).all().item() for name, tensor in to_timm(model).items()} == dict.fromkeys(
        state, True
    )
    back = from_timm(state, num_heads=2)
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(back(pixel_values=images).logits, model(pixel_values=images).logits)
    said = json.loads(Path("out/config.json").read_text())
    assert said["model_args"] == {
        "img_size": 8,
        "patch_size": 4,
        "in_chans": 3,
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "qkv_bias": True,
    }
    expected = {"architecture": "vit_small_patch16_224", "num_classes": 4, "num_features": 16, "global_pool": "token"}
    assert {name: said[name] for name in expected} == expected
    umask = os.umask(0)
    os.umask(umask)
    for file in Path("out").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize(
    "member", [pytest.param("pt-2", marks=pytest.mark.slow), "pt-1/ft-1"], ids=["embedding", "mlp"]
)
@pytest.mark.slow
def test_onnx_of_every_head(member: str, tiny_zoo: Path, tmp_path: Path, export: Export) -> None:
    import onnxruntime

    folder = tmp_path / member.replace("/", "-")
    code, out, err = export(str(tiny_zoo / member), str(folder), "--to", "onnx")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].endswith(f"is in {folder}: config.json, model.onnx, preprocessor_config.json")
    assert lines[1].startswith("Opset 18, any batch size; the largest difference of a logit from torch's is ")
    assert float(lines[1].rstrip(".").rpartition(" ")[2]) <= 1e-4
    assert f'onnxruntime.InferenceSession("{folder}/model.onnx")' in lines[2]
    for name in ("config.json", "preprocessor_config.json"):
        assert (folder / name).read_bytes() == (tiny_zoo / member / name).read_bytes()
    model = Zoo(tiny_zoo)[member].load()
    images = torch.randn(4, 3, 8, 8)
    session: Any = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"pixel_values": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(pixel_values=images).logits, rtol=0, atol=1e-4)


def test_a_member_of_a_hub_repo(hub: Hub, tiny_copy: Path, export: Export) -> None:
    plant(hub, tiny_copy)
    code, out, err = export("org/vit-zoo/pt-0", "out", "--to", "timm", "--revision", "main")
    assert code == 0, err
    assert "org/vit-zoo/pt-0 is in out: config.json, model.safetensors" in out
    assert torch.equal(
        load_file("out/model.safetensors")["norm.weight"],
        load_file("zoo/pt-0/model.safetensors")["vit.layernorm.weight"],
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{zoo}/pt-0@9 out --to timm", "pt-0 has no weights of epoch 9; expected a saved epoch: 0 to 2"),
        ("{zoo}/pt-9 out --to onnx", "has no member pt-9"),
        ("nonsense out --to onnx", '"nonsense" is not a member id'),
        ("{zoo}/pt-0 out --to timm --revision main", 'revision="main" was given for the folder'),
        (
            "{zoo}/pt-1/ft-1 out --to timm",
            "The model has an MLP head of width 8",
        ),
        ("{zoo}/pt-0 full --to timm", "full has files already, and nothing is overwritten"),
        ("{zoo}/pt-0 full/file --to onnx", "full/file is not a folder, and nothing is overwritten"),
        ("{zoo}/pt-0 link --to onnx", "link is not a folder"),
        ("{zoo}/pt-0 full/file/out --to timm", "full/file/out cannot be written: [Errno 17] File exists:"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    arguments: str, words: str, tiny_zoo: Path, tmp_path: Path, export: Export
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    code, out, err = export(*arguments.format(zoo=tiny_zoo).split())
    assert (code, out) == (1, "")
    assert words in err.replace("\n", "")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/file", "link"]
    assert (tmp_path / "full/file").read_text() == "kept"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path, error: BaseException) -> None:
        (folder / "half").write_text("half")
        assert not (tmp_path / "out").exists()
        raise error

    failures: list[tuple[BaseException, type[BaseException]]] = [
        (OSError(28, "No space left on device"), DownloadError),
        (WeightsError("damaged"), WeightsError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ]
    for error, raised in failures:
        with pytest.raises(raised):
            write_folder(tmp_path / "out", partial(fail, error=error))
        assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()  # an empty one is as good as none
    assert write_folder(tmp_path / "out", lambda folder: (folder / "file").write_text("all")) == 3
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/file"]


def test_folder_of_a_killed_export_is_deleted_by_the_next_one(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from vitzoo.cli.export import write_folder
write_folder(pathlib.Path({str(tmp_path / "out")!r}), lambda folder: os.kill(os.getpid(), 9))
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.iterdir())) == 1

    def export_beside(folder: Path) -> None:  # another export to the same place, while this one is alive
        write_folder(tmp_path / "out", lambda folder: None)
        assert folder.is_dir()

    with pytest.raises(DownloadError):
        write_folder(tmp_path / "out", lambda folder: (export_beside(folder), (tmp_path / "out/file").touch()))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export_that_cannot_succeed_is_refused_without_torch(tiny_zoo: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from vitzoo.cli import main
sys.modules["onnxscript"] = None  # Python's mark of a package that cannot be imported
sys.argv = ["vitzoo", "export", {f"{tiny_zoo}/pt-0/ft-1"!r}, "out", "--to", sys.argv[1]]
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    for library, word in (("timm", "MLP head"), ("onnx", "onnxscript is not installed")):
        command = [sys.executable, "-c", code, library]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, done.stdout) == (1, "False\n"), done.stderr
        assert word in done.stderr


@pytest.mark.parametrize(
    ("changes", "processor", "key"),
    [
        ({"layer_norm_eps": 1e-5}, {}, "layer_norm_eps"),
        ({"hidden_act": "relu"}, {}, "hidden_act"),
        ({}, {"do_resize": False, "do_center_crop": True}, "do_resize"),
    ],
)
def test_timm_config_refuses_a_model_that_it_cannot_describe(changes: dict, processor: dict, key: str) -> None:
    sizes: dict[str, Any] = {"image_size": 8, "patch_size": 4, "num_hidden_layers": 1}
    config = VitZooConfig(**sizes | changes)
    with pytest.raises(ConfigError) as refused:
        timm_config(config, PROCESSOR | processor)
    assert refused.value.key == key


@pytest.mark.parametrize(("side", "shorter"), [(224, 256), (8, 11), (49, 343)])
def test_timm_resizes_to_the_shorter_side(side: int, shorter: int) -> None:
    config = VitZooConfig(image_size=side, patch_size=1, num_hidden_layers=1)
    said = timm_config(config, PROCESSOR | {"size": {"shortest_edge": shorter}})["pretrained_cfg"]
    assert int(side / said["crop_pct"]) == shorter
    assert said["crop_pct"] == pytest.approx(side / shorter)
    assert said["crop_mode"] == "center"


def test_the_paper_s_members_are_timm_s_vit_small() -> None:
    labels: dict[str, Any] = {"num_labels": 100}
    config = VitZooConfig(**labels)
    assert architecture(config) == "vit_small_patch16_224"
    said = timm_config(config, PROCESSOR | {"size": {"shortest_edge": 256}, "resample": 3})
    assert said["pretrained_cfg"]["crop_pct"] == 0.875
    assert said["pretrained_cfg"]["interpolation"] == "bicubic"
    assert len(said["label_names"]) == said["num_classes"] == 100
    assert architecture(VitZooConfig(image_size=384)) == "vit_small_patch16_384"
    assert architecture(VitZooConfig(image_size=240)) == "vit_small_patch16_224"


def test_the_guide_runs(digits_zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "zoo").symlink_to(digits_zoo)
    names: dict[str, object] = {}
    printed = print_guide("timm", names).splitlines()
    assert printed[-2:] == ["44 blocks.0.attn.qkv.weight [96, 32]", "(143, 4) True"]
    assert isinstance(names["model"], VitZooModel)
    (found,) = real_timm("folders", f"{tmp_path}/as-timm={digits_zoo}/pt-12/ft-3").values()
    assert max(value for name, value in found["differences"].items() if name != "size") <= 1e-5
