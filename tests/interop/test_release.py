"""The data set made in the authors' layout is as theirs: folders, names, tensors, records; and its damage is damage."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.interop import damage
from tests.interop.authors_vit import TINY, VIT_S_16, AuthorsViT
from tests.interop.release import FAMILIES, Release, write_release
from tests.interop.release_records import PRIVATE, Child, Parent, child_config, parent_config

SL, CL = "sl_vit_s_16_224_seed_42_bs_256_lr_0.001_wd_0.0001_me_4", "cl_vit_s_16_seed_42_bs_96_lr_0.001_wd_0.0001_me_2"
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
BLOCK = [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]
BACKBONE = [
    *("vit.cls_token", "vit.pos_embed", "vit.patch_embed.proj.weight", "vit.patch_embed.proj.bias"),
    *(f"vit.blocks.0.{name}" for name in BLOCK),
    *(f"vit.blocks.1.{name}" for name in BLOCK),
    *("vit.norm.weight", "vit.norm.bias"),
]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("authors") / "dataset")


@pytest.fixture
def small(tmp_path: Path) -> Release:
    return write_release(tmp_path / "dataset", families=(Parent(mode="sl", seed=1, epochs=2, digits=6),))


def load(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True, map_location="cpu")


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_folders_are_the_authors(release: Release):
    assert [parent.name for parent in release.parents] == [
        "sl_vit_s_16_224_seed_6312_bs_256_lr_0.001_wd_0.0001_me_3",
        SL,
        CL,
    ]
    assert [(child.parent, child.name) for child in release.children] == [
        (SL, "sl_ft_SD_42_LR_0.001_WD_0_OM_adamw_HD_NA_FZ_False_FCMLP_False"),
        (SL, "sl_ft_SD_42_LR_0.003_WD_0_OM_sgd_HD_NA_FZ_False_FCMLP_False"),
        (SL, "sl_ft_SD_42_LR_0.001_WD_0_OM_adamw_HD_16_FZ_False_FCMLP_True"),
        (SL, "sl_ft_SD_42_LR_0.003_WD_0_OM_sgd_HD_16_FZ_False_FCMLP_True"),
        (CL, "cl_ft_SD_42_LR_0.003_WD_0_OM_adamw_HD_NA_FZ_False_FCMLP_False"),
        (CL, "cl_ft_SD_42_LR_0.001_WD_0_OM_sgd_HD_NA_FZ_False_FCMLP_False"),
        (CL, "cl_ft_SD_42_LR_0.001_WD_0_OM_adamw_HD_16_FZ_False_FCMLP_True"),
        (CL, "cl_ft_SD_7_LR_0.003_WD_0_OM_sgd_HD_16_FZ_False_FCMLP_True"),
    ]
    folders = [folder for top in ("pretraining", "finetuning/*") for folder in release.root.glob(f"{top}/*")]
    assert sorted(folders) == sorted(model.folder for model in release.models)
    for model in release.models:
        written = {path.relative_to(model.folder).as_posix() for path in model.folder.rglob("*") if path.is_file()}
        expected = {"config.json", "result.json"}
        for checkpoint in model.checkpoints.values():
            added_by_ray = (".is_checkpoint", ".tune_metadata") if model.spec.digits == 6 else ()
            expected |= {f"{checkpoint.parent.name}/{name}" for name in ("checkpoints", "optimizer", *added_by_ray)}
        assert written == expected


def test_checkpoints_have_three_spellings_and_two_numberings(release: Release):
    found = {parent.name: {e: path.parent.name for e, path in parent.checkpoints.items()} for parent in release.parents}
    assert list(found.values()) == [
        {epoch: f"checkpoint_00000{epoch}" for epoch in range(4)},
        {epoch: f"checkpoint_{epoch - 1}" for epoch in range(1, 5)},
        {epoch: f"checkpoint_000{epoch}" for epoch in range(3)},
    ]


@pytest.mark.parametrize(
    ("number", "head"),
    [
        (0, {"vit.head.weight": (100, 64), "vit.head.bias": (100,)}),
        (
            2,
            {
                "vit.head.0.weight": (16, 64),
                "vit.head.0.bias": (16,),
                "vit.head.2.weight": (100, 16),
                "vit.head.2.bias": (100,),
            },
        ),
    ],
)
def test_state_dicts_have_timms_names_in_its_order(release: Release, number: int, head: dict[str, tuple[int, ...]]):
    state = load(release.children[number].checkpoints[1])
    assert list(state) == BACKBONE + list(head)
    assert {name: tuple(state[name].shape) for name in head} == head
    assert state["vit.pos_embed"].shape == (1, 5, 64)
    assert state["vit.blocks.0.attn.qkv.weight"].shape == (192, 64)


def test_what_is_on_disk_is_what_is_described(release: Release):
    for model in release.models:
        assert model.states.keys() == model.checkpoints.keys()
        for epoch, path in model.checkpoints.items():
            assert same(load(path), model.states[epoch])
        assert json.loads(model.config_json.read_text()) == model.config
        assert [json.loads(line) for line in model.result_json.read_text().splitlines()] == list(model.rows)


def test_tensors_were_on_a_gpu(release: Release, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
        torch.load(release.models[0].checkpoints[1], weights_only=True)


def test_optimizers_are_real_ones(release: Release):
    for model in release.models:
        network = AuthorsViT.of(model.states[1])
        optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[model.spec.optimizer](network.parameters())
        saved: Any = load(model.checkpoints[1].with_name("optimizer"))
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["lr"] == model.spec.learning_rate
    assert len(load(release.parents[0].checkpoints[0].with_name("optimizer"))["state"]) == 0


def test_children_begin_at_their_parents_backbone_under_a_fresh_head(release: Release):
    for parent in release.parents:
        reached = parent.states[max(parent.states)]
        for child in release.children_of(parent):
            assert all(torch.equal(child.start[name], reached[name]) for name in BACKBONE)
            assert same(child.start, child.states[0])
            assert not any(torch.equal(child.states[1][name], reached[name]) for name in BACKBONE if "weight" in name)
    heads = {name: child.states[0] for child in release.children if (name := child.name[5:]) and child.parent == SL}
    linear, other, mlp, _ = heads.values()
    assert torch.equal(linear["vit.head.weight"], other["vit.head.weight"])  # of one seed
    assert linear["vit.head.bias"].unique().tolist() == pytest.approx([0.01])
    assert mlp["vit.head.0.bias"].unique().numel() == 16  # PyTorch's default
    assert mlp["vit.head.0.weight"].abs().max() <= 64**-0.5


def test_children_may_begin_at_another_epoch(tmp_path: Path):
    child = Child(optimizer="sgd", learning_rate=0.1, from_epoch=1, epochs=1)
    families = (Parent(mode="sl", seed=1, epochs=3, digits=4, children=(child,)),)
    release = write_release(tmp_path, families=families, optimizers=False, keep_states=False)
    parent, child = load(release.parents[0].checkpoints[1]), load(release.children[0].checkpoints[0])
    assert all(torch.equal(child[name], parent[name]) for name in BACKBONE)
    assert release.children[0].config["pretraining::model::path"].endswith("_me_3/checkpoint_0001/checkpoints")
    assert not list(tmp_path.rglob("optimizer"))
    assert not release.children[0].states


def test_untrained_parents_are_initialised_as_the_authors(release: Release):
    start = release.parents[0].start
    for name, tensor in start.items():
        if "norm" in name:
            assert tensor.unique().tolist() == [float(name.endswith("weight"))]
        elif name.endswith("bias"):
            assert tensor.unique().tolist() == pytest.approx([0.01])
    weight = start["vit.blocks.0.mlp.fc2.weight"]
    assert weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.03)  # kaiming_normal over 256 inputs
    assert start["vit.cls_token"].abs().max() < 1e-5


def test_figures(release: Release):
    for model in release.models:
        assert [row["training_iteration"] for row in model.rows] == list(range(model.spec.epochs + 1))
        assert [row["done"] for row in model.rows] == [False] * model.spec.epochs + [True]
        first = model.figures(0)
        assert (first["train_loss"], first["train_acc"]) == (first["test_loss"], first["test_acc"])
        losses = [row["test_loss"] for row in model.rows]
        assert losses == sorted(losses, reverse=True)
        assert ("val_acc" in first) == model.spec.validated
        if model.folder.parent.name == "pretraining" and model.name.startswith("cl"):
            assert {row["train_acc"] for row in model.rows[1:]} == {0}
    assert sum(model.spec.validated for model in release.models) == 1


def test_records_have_private_fields_in_them(release: Release):
    for model in release.models:
        text = model.result_json.read_text()
        assert all(private in text for private in PRIVATE)
        used = model.rows[0]["config"]
        assert used.keys() - model.config.keys() == {"dataset::ref", "scheduler::steps_per_epoch"}
    assert release.children[0].rows[0]["config"]["scheduler::steps_per_epoch"] == 195


def test_configs_are_the_authors():
    parent = Parent(mode="sl", seed=42, epochs=90, digits=1, numbering="from first epoch")
    config = child_config(Child(optimizer="adamw", learning_rate=0.001, epochs=50), parent, VIT_S_16)
    assert len(config) == 44
    assert config["pretraining::model::path"] == (
        "/ds2/model_zoos/zoos_vit/zoos/ImageNet/sl_vit_s_16_224_seed_42_bs_256_lr_0.001_wd_0.0001_me_90"
        "/checkpoint_89/checkpoints"
    )
    assert (config["model::type"], config["model::head::mlp"], config["model::head::hidden_dim"]) == (
        *("vit_s_16", False, None),
    )
    contrastive = parent_config(replace(parent, mode="cl", batch_size=96), VIT_S_16)
    assert len(contrastive) == 36
    assert contrastive["model::name"] == "cl_vit_s_16_seed_42_bs_96_lr_0.001_wd_0.0001_me_90"
    assert (contrastive["training::loss"], contrastive["training::temperature"]) == ("info_nce", 0.07)


def test_one_config_lacks_what_its_folder_says(release: Release):
    child = release.children[1]
    assert {"optim::lr", "optim::wd", "seed"}.isdisjoint(child.config)
    assert child.name.startswith("sl_ft_SD_42_LR_0.003_WD_0_")


def test_the_same_again(release: Release, tmp_path: Path):
    again = write_release(tmp_path / "again")
    for left, right in zip(release.models, again.models, strict=True):
        assert left.rows == right.rows
        assert all(same(left.states[epoch], right.states[epoch]) for epoch in left.states)


def test_attention_of_the_oracle_is_torchs(release: Release):
    network = AuthorsViT.of(release.parents[0].states[2])
    tokens = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    attention: Any = network.vit.blocks[0].attn
    oracle = nn.MultiheadAttention(64, num_heads=1, batch_first=True)
    names = {"in_proj_weight": attention.qkv.weight, "in_proj_bias": attention.qkv.bias}
    names |= {"out_proj.weight": attention.proj.weight, "out_proj.bias": attention.proj.bias}
    oracle.load_state_dict(names)
    expected, _ = oracle(tokens, tokens, tokens)
    torch.testing.assert_close(attention(tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_malicious_file_is_live_and_torch_refuses_it(small: Release, tmp_path: Path, form: Any):
    path, marker = small.parents[0].checkpoints[1], tmp_path / "ran"
    damage.make_malicious(path, marker, form=form)
    with pytest.raises(pickle.UnpicklingError):
        load(path)
    assert not marker.exists()
    if form == "zip":
        torch.load(path, weights_only=False, map_location="cpu")
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda path: damage.change_shape(path, "vit.norm.bias", (7,)), lambda s: s["vit.norm.bias"].shape == (7,)),
        (damage.as_bf16, lambda s: {tensor.dtype for tensor in s.values()} == {torch.bfloat16}),
        (lambda path: damage.add_tensor(path, "vit.more", torch.ones(1)), lambda s: list(s)[-1] == "vit.more"),
        (lambda path: damage.remove_tensor(path, "vit.norm.bias"), lambda s: "vit.norm.bias" not in s),
        (damage.legacy_pickle, lambda s: list(s)[:4] == BACKBONE[:4]),
    ],
)
def test_damage_of_checkpoints(
    small: Release, change: Callable[[Path], None], check: Callable[[dict[str, Tensor]], bool]
):
    path = small.parents[0].checkpoints[1]
    assert not check(load(path)) or change is damage.legacy_pickle
    change(path)
    assert check(load(path))
    assert (path.read_bytes()[:2] == b"PK") == (change is not damage.legacy_pickle)


def test_damage_of_files(small: Release):
    parent = small.parents[0]
    damage.truncate(parent.checkpoints[1])
    with pytest.raises(RuntimeError):
        load(parent.checkpoints[1])
    damage.nan_in(parent.result_json, 1)
    damage.repeat_rows(parent.result_json, 2)
    lines = parent.result_json.read_text().splitlines()
    assert [json.loads(line)["training_iteration"] for line in lines] == [0, 1, 2, 2]
    assert ['"test_loss": NaN' in line for line in lines] == [False, True, False, False]
    damage.drop_rows(parent.result_json, 2)
    damage.cut_last_line(parent.result_json)
    whole, cut = parent.result_json.read_text().split("\n")
    assert whole == lines[0]
    assert 0 < len(cut) < len(lines[1])
    assert lines[1].startswith(cut)
    damage.remove_keys(parent.config_json, "seed")
    damage.change_keys(parent.config_json, **{"optim::lr": 0.5})
    assert json.loads(parent.config_json.read_text()) == {k: v for k, v in parent.config.items() if k != "seed"} | {
        "optim::lr": 0.5
    }


def test_a_real_size():
    with torch.device("meta"):
        network = AuthorsViT(VIT_S_16, outputs=100)
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_704_164
    assert len(network.state_dict()) == 152
    assert TINY.hidden == 64
    assert len(FAMILIES) == 3
