"""Merged models: each method against a computation of its own, refusals, the saved folder and the command."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.hub.server import Hub
from tests.published import REPO, plant
from tests.test_cli import Here
from tests.weights.checkpoints import map_tensors, rewrite
from vitzoo import Selection, VitZooModel, Zoo, ZooModel, evaluate, merge
from vitzoo.errors import DatasetError, EpochNotFoundError, MemberOverwriteError, SelectionError, WeightsError

ONE_SEED = ["pt-0/ft-0", "pt-1/ft-0", "pt-2/ft-0"]  # linear heads of one seed


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _select(root: Path, **conditions: Any) -> Selection:
    return Zoo(root).select(**conditions)


def _rows(selection: Selection) -> np.ndarray:
    return Zoo.of(selection.catalogue.source).weights(selection).matrix(part="all", dtype="float64").values


def test_uniform_and_weighted_equal_numpy(tiny_zoo: Path) -> None:
    selection = _select(tiny_zoo, id=ONE_SEED)
    uniform, weighted = merge(selection), merge(selection, weights=[1, 2, 0.5])
    assert np.array_equal(uniform.vector, _rows(selection).mean(axis=0).astype(np.float32))
    assert np.array_equal(weighted.vector, np.average(_rows(selection), axis=0, weights=[1, 2, 0.5]).astype(np.float32))
    assert (uniform.method, weighted.method) == ("uniform", "weighted")
    assert uniform.ingredients == selection.refs
    assert weighted.shares == pytest.approx([2 / 7, 4 / 7, 1 / 7])
    assert len(repr(uniform)) < 200
    assert "pt-1/ft-0" in uniform._repr_html_()


def test_epochs_are_the_last_ones_up_to_the_selected(tiny_zoo: Path) -> None:
    final = merge(_select(tiny_zoo, id="pt-0/ft-0"), method="epochs", last=2)
    assert [ref.epoch for ref in final.ingredients] == [1, 2]
    expected = _rows(_select(tiny_zoo, id="pt-0/ft-0", epoch=[1, 2])).mean(axis=0)
    assert np.array_equal(final.vector, expected.astype(np.float32))
    earlier = merge(_select(tiny_zoo, id="pt-0/ft-0", epoch=1), method="epochs", last=2)
    assert [ref.epoch for ref in earlier.ingredients] == [0, 1]


@pytest.mark.parametrize(
    ("method", "options"),
    [("uniform", {}), ("greedy", {}), ("stock", {}), ("epochs", {"last": 1}), ("task-arithmetic", {"scale": 1.0})],
)
def test_one_ingredient_is_itself_bit_for_bit(tiny_zoo: Path, method: str, options: dict[str, Any]) -> None:
    selection = _select(tiny_zoo, id="pt-0/ft-0")
    merged = merge(selection, method=method, **options)
    assert merged.vector.tobytes() == _rows(selection)[0].astype(np.float32).tobytes()
    recorded = Zoo(tiny_zoo)["pt-0/ft-0"].metrics_at()
    assert merged.evaluate(part="test").accuracy == recorded.test_accuracy


def test_task_arithmetic_adds_moves_to_the_common_start(tiny_zoo: Path) -> None:
    selection = _select(tiny_zoo, id="pt-0/ft-0", epoch=[1, 2])
    start, one, two = _rows(_select(tiny_zoo, id="pt-0/ft-0", epoch=[0, 1, 2]))
    merged = merge(selection, method="task-arithmetic", scale=0.7)
    np.testing.assert_allclose(merged.vector, start + 0.7 * (one - start + two - start), rtol=2e-7, atol=1e-9)
    assert merged.anchor is not None
    assert merged.anchor.epoch == 0


def test_stock_equals_the_formula_by_tensor(tiny_zoo: Path) -> None:
    selection = _select(tiny_zoo, id="pt-0/ft-0", epoch=[1, 2])
    merged = merge(selection, method="stock")
    rows = _rows(_select(tiny_zoo, id="pt-0/ft-0", epoch=[0, 1, 2]))
    for entry, detail in zip(merged.index.values(), merged.details.to_dict("records"), strict=True):
        start, one, two = rows[:, entry.span]
        move, other = one - start, two - start
        cosine = float(move @ other / np.linalg.norm(move) / np.linalg.norm(other))
        assert detail["tensor"] == entry.name
        assert detail["cosine"] == pytest.approx(cosine, abs=1e-6)
        assert detail["ratio"] == pytest.approx(2 * cosine / (1 + cosine), abs=1e-6)
        expected = start + detail["ratio"] * ((one + two) / 2 - start)
        np.testing.assert_allclose(merged.vector[entry.span], expected, rtol=2e-7, atol=1e-9)


def test_stock_of_opposite_moves_stays_at_the_start(tiny_copy: Path) -> None:
    start = load_file(tiny_copy / "pt-0/ft-0/model.epoch-00.safetensors")
    early = load_file(tiny_copy / "pt-0/ft-0/model.epoch-01.safetensors")
    rewrite(tiny_copy / "pt-0/ft-0", lambda _: {name: 2 * start[name] - early[name] for name in start})
    (tiny_copy / "pt-0/ft-0/model.epoch-02.safetensors").unlink()
    shutil.copy(tiny_copy / "pt-0/ft-0/model.safetensors", tiny_copy / "pt-0/ft-0/model.epoch-02.safetensors")
    with pytest.warns(UserWarning, match=r"tensors have moves with a negative cosine"):
        merged = merge(_select(tiny_copy, id="pt-0/ft-0", epoch=[1, 2]), method="stock")
    assert merged.details["clipped"].tolist() == [True] * len(merged.index)
    assert np.array_equal(merged.vector, _rows(_select(tiny_copy, id="pt-0/ft-0", epoch=0))[0].astype(np.float32))


def test_greedy_soup_follows_the_published_recipe(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    selection = zoo.select(id=ONE_SEED, epoch=[1, 2])
    rows, table = _rows(selection), selection.epochs_table.to_pylist()
    member = zoo[ONE_SEED[0]]
    split, matrix = member.load_part("val"), zoo.weights(selection).matrix(part="all")
    order = sorted(range(len(rows)), key=lambda row: (-table[row]["val_accuracy"], table[row]["val_loss"]))
    for method, better in (("greedy", np.greater_equal), ("greedy-strict", np.greater)):
        kept, best, accuracies = [], -1.0, []
        for row in order:
            model = matrix.to_model(rows[[*kept, row]].mean(axis=0).astype(np.float32))
            accuracies.append(member.evaluate_model(model, split).accuracy)
            if better(accuracies[-1], best):
                kept, best = [*kept, row], accuracies[-1]
        merged = merge(selection, method=method)
        assert merged.ingredients == tuple(selection[row] for row in kept)
        assert merged.details["soup_val_accuracy"].tolist() == accuracies
        assert np.array_equal(merged.vector, rows[kept].mean(axis=0).astype(np.float32))
        assert evaluate(merged.to_model(), split, processor=member).accuracy == best


def test_greedy_rules_differ_for_an_equal_accuracy(tiny_copy: Path) -> None:
    for name in ("model.safetensors", "model.epoch-02.safetensors"):
        (tiny_copy / "pt-1/ft-0" / name).unlink()
        shutil.copy(tiny_copy / "pt-0/ft-0" / name, tiny_copy / "pt-1/ft-0" / name)
    selection = _select(tiny_copy, id=ONE_SEED[:2])
    assert len(merge(selection, method="greedy").ingredients) == 2
    assert len(merge(selection, method="greedy-strict").ingredients) == 1


def test_other_head_seeds_are_a_warning(tiny_zoo: Path) -> None:
    with pytest.warns(UserWarning, match="head_seed"):
        merge(_select(tiny_zoo, id=["pt-0/ft-0", "pt-0/ft-2"]))


def test_barrier_is_a_warning(tiny_copy: Path) -> None:
    rewrite(tiny_copy / "pt-1/ft-0", map_tensors(torch.neg))
    merged = merge(_select(tiny_copy, id=ONE_SEED[:2]))
    with pytest.warns(UserWarning, match="barrier"):
        found = merged.evaluate()
    recorded: list[Any] = [Zoo(tiny_copy)[name].metrics_at().test_accuracy for name in ONE_SEED[:2]]
    assert found.accuracy < np.mean(recorded) - 0.02


def test_comparison_has_the_baselines(tiny_zoo: Path) -> None:
    zoo = Zoo(tiny_zoo)
    found: Any = merge(zoo.select(id=ONE_SEED), method="greedy").compare(part="test")
    records: list[Any] = [zoo[name].metrics_at() for name in ONE_SEED]
    best = min(records, key=lambda record: (-record.val_accuracy, record.val_loss))
    assert found["best"] == best.test_accuracy
    assert found["mean"] == pytest.approx(np.mean([record.test_accuracy for record in records]))
    split = zoo[ONE_SEED[0]].load_part("test")
    outputs = [zoo[name].evaluate_model(zoo[name].load(), split) for name in ONE_SEED]
    ensemble = torch.stack([output.logits.double().softmax(1) for output in outputs]).mean(0).argmax(1)
    assert found["ensemble"] == pytest.approx(float((ensemble == outputs[0].labels).double().mean()))


@pytest.mark.parametrize(
    ("conditions", "options"),
    [
        ({"id": ["pt-0/ft-0", "pt-0/ft-1"]}, {}),  # a linear head and an MLP
        ({"id": ["pt-0", "pt-2"]}, {}),  # supervised and contrastive
        ({"id": ["pt-0", "pt-0/ft-0"]}, {}),  # other classes
        ({"id": ONE_SEED}, {"weights": [1, -1, 0]}),
        ({"id": ONE_SEED}, {"weights": [1, 1]}),
        ({"id": ONE_SEED}, {"weights": [1, float("nan"), 1]}),
        ({"id": ONE_SEED}, {"weights": [1, 1, 1], "method": "greedy"}),
        ({"id": ONE_SEED}, {"method": "weighted"}),
        ({"id": ONE_SEED}, {"method": "median"}),
        ({"id": ONE_SEED}, {"method": "task-arithmetic"}),
        ({"id": ONE_SEED}, {"method": "task-arithmetic", "scale": float("inf")}),
        ({"id": ONE_SEED}, {"method": "stock"}),  # no common start
        ({"id": ONE_SEED}, {"method": "epochs", "last": 2}),
        ({"id": "pt-0/ft-0"}, {"method": "epochs", "last": 0}),
        ({"id": "pt-0/ft-0"}, {"method": "epochs", "last": 4}),
    ],
)
def test_what_cannot_be_merged_is_refused(tiny_zoo: Path, conditions: Any, options: Any) -> None:
    with pytest.raises(SelectionError):
        merge(_select(tiny_zoo, **conditions), **options)


def test_duplicate_and_empty_selections_are_refused(tiny_zoo: Path) -> None:
    selection = _select(tiny_zoo, id=ONE_SEED)
    final = _select(tiny_zoo, id="pt-0/ft-0")[0]
    numbered = _select(tiny_zoo, id="pt-0/ft-0", epoch=2)[0]
    for refs in ((), (selection[0], selection[0]), (final, numbered)):
        with pytest.raises(SelectionError):
            merge(selection.with_refs(refs))


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "id2label", {"0": "9", "1": "8", "2": "7", "3": "6"}),
        ("config.json", "num_attention_heads", 4),
        ("config.json", "image_size", 16),
        ("preprocessor_config.json", "image_mean", [0.4, 0.5, 0.5]),
    ],
)
def test_other_network_classes_and_preparation_are_refused(tiny_copy: Path, file: str, key: str, value: Any) -> None:
    path = tiny_copy / "pt-1/ft-0" / file
    content = json.loads(path.read_text()) | {key: value}
    if key == "id2label":
        content["label2id"] = {name: int(number) for number, name in value.items()}
    path.write_text(json.dumps(content))
    if key == "image_size":  # the two files agree
        processor = path.with_name("preprocessor_config.json")
        size = {"size": {"height": value, "width": value}}
        processor.write_text(json.dumps(json.loads(processor.read_text()) | size))
    with pytest.raises(SelectionError) as raised:
        merge(_select(tiny_copy, id=ONE_SEED))
    assert raised.value.value == "pt-1/ft-0"


def test_nan_unsaved_epochs_and_embeddings_are_refused(tiny_copy: Path) -> None:
    with pytest.raises(DatasetError):
        merge(_select(tiny_copy, id="pt-2"), method="greedy")
    rewrite(tiny_copy / "pt-1/ft-0", map_tensors(lambda tensor: torch.full_like(tensor, torch.inf)))
    with pytest.raises(WeightsError) as raised:
        merge(_select(tiny_copy, id=ONE_SEED))
    assert raised.value.path == tiny_copy / "pt-1/ft-0/model.safetensors"
    record = tiny_copy / "pt-0/ft-0/member.json"
    content = json.loads(record.read_text())
    content["weights"] = [item for item in content["weights"] if item["epoch"] not in (0, 1)]
    record.write_text(json.dumps(content))
    for epoch in (0, 1):
        (tiny_copy / f"pt-0/ft-0/model.epoch-{epoch:02d}.safetensors").unlink()
    refused: list[Any] = [{"method": "epochs", "last": 2}, {"method": "stock"}]
    for options in refused:
        with pytest.raises(EpochNotFoundError):
            merge(_select(tiny_copy, id="pt-0/ft-0"), **options)


def test_members_that_did_not_complete_are_a_warning(tiny_copy: Path) -> None:
    record = tiny_copy / "pt-1/ft-0/member.json"
    end = {"status": "diverged", "diverged_step": 5, "last_good_epoch": 2}
    record.write_text(json.dumps(json.loads(record.read_text()) | end))
    with pytest.warns(UserWarning, match="diverged"):
        merge(_select(tiny_copy, id=ONE_SEED, status="any"))


def _read_card(folder: Path) -> dict[str, Any]:
    _, front, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front)


def test_saved_folder_works_in_transformers(tiny_zoo: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    merged = merge(_select(tiny_zoo, id=ONE_SEED))
    merged.save_pretrained(tmp_path / "soup")
    saved = load_file(tmp_path / "soup/model.safetensors")
    assert list(saved) == list(load_file(tiny_zoo / "pt-0/ft-0/model.safetensors"))
    assert np.array_equal(merged.index.flatten(saved), merged.vector)
    images = torch.rand(2, 3, 8, 8)
    loaded = VitZooModel.from_pretrained(tmp_path / "soup")
    assert torch.equal(loaded(pixel_values=images).logits, merged.to_model()(pixel_values=images).logits)
    split = Zoo(tiny_zoo)["pt-0/ft-0"].load_part("test")
    with pytest.warns(UserWarning, match="barrier"):
        accuracy = merged.evaluate().accuracy
    assert evaluate(loaded, split).accuracy == accuracy
    (answers,) = [pipeline("image-classification", str(tmp_path / "soup"))(Image.new("RGB", (8, 8)))]
    assert {answer["label"] for answer in answers} == {"6", "7", "8", "9"}
    card = _read_card(tmp_path / "soup")
    assert card["tags"] == ["merge", "vitzoo"]
    assert card["pipeline_tag"] == "image-classification"
    assert "base_model" not in card
    assert [(row["member"], row["epoch"]) for row in card["ingredients"]] == [(name, 2) for name in ONE_SEED]
    assert all(row["share"] == pytest.approx(1 / 3) for row in card["ingredients"])
    assert str(tiny_zoo) not in (tmp_path / "soup/README.md").read_text(encoding="utf-8")
    with pytest.raises(MemberOverwriteError):
        merged.save_pretrained(tiny_zoo / "pt-0/ft-0")


def test_card_of_a_hub_zoo_names_its_repo(hub: Hub, tiny_zoo: Path, tmp_path: Path) -> None:
    plant(hub, tiny_zoo)
    selection = Zoo(REPO).select(id="pt-0/ft-0", epoch=[1, 2])
    merged = merge(selection, method="stock")
    merged.save_pretrained(tmp_path / "soup")
    card = _read_card(tmp_path / "soup")
    selection.download(to=tmp_path / "copy", progress=False)
    merge(Zoo(tmp_path / "copy").select(id="pt-0/ft-0", epoch=[1, 2])).save_pretrained(tmp_path / "of-copy")
    assert _read_card(tmp_path / "of-copy")["base_model"] == [REPO]
    assert card["base_model"] == [REPO]
    assert card["base_model_relation"] == "merge"
    assert [(row["epoch"], "share" in row) for row in card["ingredients"]] == [(1, True), (2, True), (0, False)]


def test_language_models_are_merged_and_saved(text_zoo: Path, sentences: Path, tmp_path: Path) -> None:
    zoo = Zoo(text_zoo)
    for role in ("masked", "classifier"):
        member = next(member for member in zoo if member.record.head_role == role)
        selection = zoo.select(id=str(member.id), epoch="all")
        merged = merge(selection)
        assert np.array_equal(merged.vector, _rows(selection).mean(axis=0).astype(np.float32))
        merged.save_pretrained(tmp_path / role)
        loaded = ZooModel.from_pretrained(tmp_path / role)
        assert np.array_equal(merged.index.flatten(loaded.state_dict()), merged.vector)
        assert (tmp_path / role / "tokenizer.json").is_file()


def test_command_merges_a_pattern(
    tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Here(monkeypatch, capsys)
    (tmp_path / "zoo").symlink_to(tiny_zoo)
    done = here("merge", "zoo/pt-*/ft-0", "--method", "greedy", "--to", "out", "--evaluate", "--json")
    assert done.returncode == 0, done.stderr
    merged = merge(_select(tiny_zoo, id=ONE_SEED), method="greedy")
    printed = json.loads(done.stdout)
    assert len(printed["details"]) == 3
    assert printed["test_accuracy"] == pytest.approx(merged.compare().to_dict())
    assert np.array_equal(merged.index.flatten(load_file("out/model.safetensors")), merged.vector)
    refused = here("merge", "zoo/pt-0/ft-0", "--to", "out")
    assert refused.returncode == 1
    expanded = here("merge", "zoo/pt-0/ft-0", "zoo/pt-0/ft-1", "--where", "head_type=linear", "--to", "one", "--json")
    assert list(json.loads(expanded.stdout)["ingredients"].values()) == [1.0]
    table = here("merge", "zoo/pt-0/ft-0@1", "zoo/pt-1/ft-0", "--weights", "1,3", "--to", "weighted")
    assert table.returncode == 0, table.stderr
    assert "2 of 2 checkpoints, weighted: weighted" in table.stdout
    for bad in (["x-0"], ["zoo/pt-9"], ["zoo/pt-0", "./zoo/pt-1"], ["zoo/pt-0", "--weights", "a"]):
        assert here("merge", *bad, "--to", "nothing").returncode == 1
    assert here("merge", "zoo/pt-0", "--to", "zoo/pt-0/soup").returncode == 1
    assert not (tmp_path / "nothing").exists()
