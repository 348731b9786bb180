"""Selections: their checkpoints, rows, bytes and download, and the errors of empty ones."""

import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub.server import Hub
from tests.published import REPO, manifest_of, plant, zoo_files
from vitzoo import MemberId, MemberRef, Selection, Zoo
from vitzoo.errors import ConflictingArgumentsError, LeakError, RecordError, SelectionError
from vitzoo.records.epochs import Epochs
from vitzoo.sources.download import plan_download
from vitzoo.zoo.selection import check_selection

MLP = ["pt-0/ft-1", "pt-0/ft-3", "pt-1/ft-1", "pt-2/ft-1"]


@pytest.fixture
def zoo(tiny_zoo: Path) -> Zoo:
    return Zoo(tiny_zoo)


def names(selection: Selection) -> list[str]:
    """Return the references without the zoo's name."""
    return [str(MemberRef(ref.member, None, ref.epoch)) for ref in selection]


def edit_member(root: Path, member: str, **values: Any) -> None:
    file = root / member / "member.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class TestCheckpoints:
    """Members and epochs."""

    def test_default_is_the_final_weights_of_all_members(self, zoo: Zoo) -> None:
        chosen = zoo.select()
        assert names(chosen) == [str(member.id) for member in zoo]
        assert chosen.ids == [member.id for member in zoo]
        assert chosen.left_out == {}

    def test_conditions_of_the_readme(self, zoo: Zoo) -> None:
        chosen = zoo.select(
            head_type="mlp", optimizer="sgd", learning_rate=0.05, objective="contrastive", epoch=range(0, 51, 2),
            max_test_accuracy=1,
        )  # fmt: skip
        assert names(chosen) == ["pt-2/ft-1@0", "pt-2/ft-1@2"]
        assert repr(chosen) == f"Selection(1 members, 2 checkpoints, {chosen.bytes / 1000:.1f} kB)"

    def test_values_may_be_iterators_and_ids(self, zoo: Zoo) -> None:
        expected = names(zoo.select(parent=["pt-0", "pt-1"]))
        assert names(zoo.select(parent=iter(["pt-0", "pt-1"]))) == expected
        assert names(zoo.select(parent=[zoo["pt-0/ft-0"].parent, zoo["pt-1"].id])) == expected
        assert names(zoo.select(parent=(f"pt-{number}" for number in range(2)))) == expected
        assert names(zoo.select(id=[MemberId(0), MemberRef(MemberId(1), "zoo"), "pt-2"])) == ["pt-0", "pt-1", "pt-2"]
        assert names(zoo.select(" head_type=mlp , replicate = 0")) == names(zoo.select(head_type="mlp", replicate=0))

    def test_missing_files_are_not_selected(self, tiny_copy: Path) -> None:
        for name in ("pt-0/model.epoch-01.safetensors", "pt-1/model.safetensors", "pt-1/model.epoch-02.safetensors"):
            (tiny_copy / name).unlink()
        chosen = Zoo(tiny_copy).select(stage="pretraining", epoch="all")
        assert names(chosen) == ["pt-0@0", "pt-0@2", "pt-1@0", "pt-1@1", "pt-2@0", "pt-2@1", "pt-2@2"]
        assert names(Zoo(tiny_copy).select(stage="pretraining")) == ["pt-0", "pt-2"]
        assert chosen.bytes == sum((tiny_copy / f"pt-{n}/model.epoch-00.safetensors").stat().st_size * k
                                   for n, k in ((0, 2), (1, 2), (2, 3)))  # fmt: skip
        assert len(Zoo(tiny_copy).weights(chosen).matrix().values) == 7

    def test_text_selects_the_same_as_values(self, zoo: Zoo) -> None:
        assert names(zoo.select("head_type=mlp")) == MLP
        assert (
            zoo.select("head_type=mlp") == zoo.select(head_type="mlp") == Zoo(zoo.source.root).select(head_type="mlp")
        )
        assert zoo.select("head_type=mlp,epoch=0|2") == zoo.select(head_type="mlp", epoch=[2, 0])
        assert zoo.select("stage=finetuning", head_type="mlp") == zoo.select("head_type=mlp")
        assert zoo.select("head_type=mlp,replicate=0") != zoo.select("head_type=mlp")
        assert len(zoo.select("head_width=null")) + len(zoo.select("head_width=8")) == 11
        assert names(zoo.select(id=MemberId(0, 1))) == names(zoo.select("id=pt-0/ft-1")) == ["pt-0/ft-1"]

    def test_objective_means_the_pre_training_s(self, zoo: Zoo) -> None:
        assert names(zoo.select(objective="contrastive")) == ["pt-2", "pt-2/ft-0", "pt-2/ft-1"]
        assert zoo.select(objective="contrastive") == zoo.select(pretraining_objective="contrastive")
        assert len(zoo.select(objective="supervised")) == 8

    @pytest.mark.parametrize(
        ("epoch", "chosen"),
        [
            ("last", ["pt-1"]),
            (None, ["pt-1"]),
            (0, ["pt-1@0"]),
            (2, ["pt-1@2"]),
            ([2, 0], ["pt-1@0", "pt-1@2"]),
            ("0,2", ["pt-1@0", "pt-1@2"]),
            (range(1, 1000), ["pt-1@1", "pt-1@2"]),
            ("all", ["pt-1@0", "pt-1@1", "pt-1@2"]),
            (Epochs("every-2"), ["pt-1@0", "pt-1@2"]),
            ("every-5", ["pt-1@0", "pt-1"]),
        ],
    )
    def test_epochs_are_named_in_many_ways(self, zoo: Zoo, epoch: object, chosen: list[str]) -> None:
        assert names(zoo.select("id=pt-1", epoch=epoch)) == chosen

    def test_last_epoch_and_final_weights_are_one_checkpoint(self, tiny_copy: Path) -> None:
        """Either of the two files is enough."""
        weights = json.loads((tiny_copy / "pt-1/member.json").read_text())["weights"]
        edit_member(tiny_copy, "pt-1", weights=[w for w in weights if w["epoch"] in (0, None)])
        edit_member(tiny_copy, "pt-2", weights=[w for w in weights if w["epoch"] in (0, 2)])
        zoo = Zoo(tiny_copy)
        for epoch, chosen in (
            ("all", ["pt-1@0", "pt-1"]),
            (2, ["pt-1"]),
            (range(3), ["pt-1@0", "pt-1"]),
            ("last", ["pt-1"]),
        ):
            assert names(zoo.select("id=pt-1", epoch=epoch)) == chosen, epoch
        for epoch, chosen in (("all", ["pt-2@0", "pt-2@2"]), ("last", ["pt-2@2"]), ("every-7", ["pt-2@0", "pt-2@2"])):
            assert names(zoo.select("id=pt-2", epoch=epoch)) == chosen, epoch
        with pytest.raises(SelectionError) as raised:
            zoo.select("id=pt-1", epoch=1)
        assert raised.value.value == "id=pt-1"

    def test_metrics_are_the_checkpoint_s_own(self, zoo: Zoo) -> None:
        metrics = {f"{member.id}@{record.epoch}": record.test_accuracy for member in zoo for record in member.metrics}
        known = sorted(accuracy for accuracy in metrics.values() if accuracy is not None)
        limit = known[len(known) // 2]
        expected = {name for name, accuracy in metrics.items() if accuracy is not None and accuracy >= limit}
        assert set(names(zoo.select(epoch="all", min_test_accuracy=limit))) == expected
        final = {str(member.id) for member in zoo if (member.metrics[-1].test_accuracy or 0) >= limit}
        assert set(names(zoo.select(min_test_accuracy=limit))) == final
        assert set(map(str, zoo.select(epoch=0, min_final_test_accuracy=limit).ids)) == final

    def test_members_that_did_not_complete_are_left_out_with_a_warning(
        self, tiny_copy: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        edit_member(tiny_copy, "pt-0/ft-1", status="diverged")
        edit_member(tiny_copy, "pt-2", status="diverged")
        zoo = Zoo(tiny_copy)
        with caplog.at_level(logging.WARNING):
            chosen = zoo.select(head_type="mlp", epoch="all")
        assert chosen.ids == [MemberId.parse(name) for name in MLP[1:]]
        assert chosen.left_out == {"diverged": 1}
        (record,) = caplog.records
        assert record.name == "vitzoo.zoo.selection"
        assert "1 diverged" in record.getMessage()
        assert repr(chosen).endswith("; left out: 1 diverged)")
        assert chosen[:3].left_out == {}
        caplog.clear()
        assert names(zoo.select(head_type="mlp", status="any")) == MLP
        assert names(zoo.select("head_type=mlp,status=any")) == MLP
        assert names(zoo.select("status=diverged")) == names(zoo.select(status=["diverged"])) == ["pt-0/ft-1", "pt-2"]
        assert names(zoo.select("status=diverged|completed", head_type="mlp")) == MLP
        assert not caplog.records
        with pytest.raises(SelectionError) as raised:
            zoo.select(id="pt-2")
        assert (raised.value.value, raised.value.fix) == ("completed", 'Take them with status="any".')
        with pytest.raises(SelectionError) as raised:
            zoo.select(status="failed")
        assert (raised.value.value, raised.value.fix) == ("failed", "There are: completed, diverged.")


class TestErrors:
    """An unknown name, value or epoch, and a selection of nothing."""

    @pytest.mark.parametrize(
        ("conditions", "value"),
        [
            ({"haed_type": "mlp"}, "haed_type"),
            ({"head_type": "mpl"}, "mpl"),
            ({"objective": "contrast"}, "contrast"),
            ({"classes": "1"}, "classes"),
            ({"min_test_accuracy": 1.5}, 1.5),
            ({"epoch": [0, 7]}, 7),
            ({"epoch": range(5, 9)}, "range(5, 9)"),
            ({"epoch": "some"}, "some"),
            ({"epoch": ""}, ""),
            ({"epoch": True}, "True"),
            ({"epoch": 1.0}, "1.0"),
            ({"epoch": []}, []),
            ({"epochs": 2}, "epochs"),  # the length of the training
            ({"where": "epochs=2"}, "epochs"),
            ({"where": "test_accuracy>=.8"}, "test_accuracy>=.8"),
        ],
    )
    def test_unknown_name_value_or_epoch_is_refused(self, zoo: Zoo, conditions: Any, value: object) -> None:
        with pytest.raises(SelectionError) as raised:
            zoo.select(**conditions)
        assert raised.value.value == value
        assert raised.value.fix or raised.value.expected

    def test_condition_that_removed_the_last_checkpoint_is_named(self, zoo: Zoo) -> None:
        with pytest.raises(SelectionError) as raised:
            zoo.select(stage="pretraining", head_type="linear", replicate=1, optimizer="sgd", epoch="every-2")
        assert raised.value.value == "replicate=1"
        assert "epoch=every-2, stage=pretraining, head_type=linear" in raised.value.problem
        with pytest.raises(SelectionError) as raised:
            zoo.select("optimizer=sgd,replicate=1", stage="pretraining")
        assert raised.value.value == "stage=pretraining"

    def test_weights_without_metrics_are_refused(self, tiny_copy: Path) -> None:
        """Final weights never get the metrics of an earlier epoch."""
        file = tiny_copy / "pt-1/metrics.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
        for epoch in ("last", "all", 1):
            with pytest.raises(RecordError) as raised:
                Zoo(tiny_copy).select(epoch=epoch)
            assert raised.value.path == file
            assert "epoch 2" in raised.value.problem

    def test_condition_named_twice_is_refused(self, zoo: Zoo) -> None:
        for where, conditions in (
            ("head_type=mlp", {"head_type": "mlp"}),
            ("epoch=0", {"epoch": 1}),
            ("status=diverged", {"status": "failed"}),
        ):
            with pytest.raises(ConflictingArgumentsError):
                zoo.select(where, **conditions)  # pyright: ignore[reportArgumentType]

    def test_empty_zoo_and_unknown_table_are_refused(self, zoo: Zoo, tiny_copy: Path) -> None:
        for file in tiny_copy.rglob("member.json"):
            file.unlink()
        with pytest.raises(SelectionError) as raised:
            Zoo(tiny_copy).select("head_type=mlp")
        assert raised.value.value == "head_type=mlp"
        with pytest.raises(SelectionError) as raised:
            zoo.table("member")
        assert (raised.value.value, raised.value.fix) == ("member", "Nearest: members.")


class TestSequence:
    """A sequence with its rows."""

    def test_selection_is_a_sequence(self, zoo: Zoo) -> None:
        chosen = zoo.select(head_type="mlp", epoch="all")
        assert len(chosen) == len(list(chosen)) == 12
        assert chosen[0] == MemberRef(MemberId(0, 1), zoo.source.name, 0)
        assert chosen[np.int64(0)] == chosen[0]  # numpy's searches give such numbers
        assert isinstance(chosen[1:3], Selection)
        assert list(chosen[1:3]) == [chosen[1], chosen[2]]
        assert chosen[-1] in chosen
        assert len({chosen, zoo.select("head_type=mlp", epoch="all"), chosen[1:]}) == 2
        assert len(chosen[:0].members_table) == len(chosen[:0].epochs_table) == chosen[:0].bytes == 0
        with pytest.raises(AttributeError):
            chosen.refs = ()  # pyright: ignore[reportAttributeAccessIssue]

    def test_references_load(self, zoo: Zoo) -> None:
        for ref in zoo.select("id=pt-0/ft-1", epoch="every-5"):
            model = zoo[ref.member].load(epoch=ref.epoch)
            assert model.name_or_path == str(ref)

    def test_rows_are_in_the_order_of_checkpoints(self, zoo: Zoo) -> None:
        chosen = zoo.select("head_type=mlp", epoch="every-5")
        assert chosen.members_table.column("id").to_pylist() == MLP
        rows = chosen.epochs_table.to_pylist()
        assert [(row["id"], row["epoch"]) for row in rows] == [(name, epoch) for name in MLP for epoch in (0, 2)]
        for row, ref in zip(rows, chosen, strict=True):
            assert row["test_accuracy"] == zoo[ref.member].metrics_at(ref.epoch).test_accuracy

    def test_rows_become_datasets_and_data_frames(self, zoo: Zoo) -> None:
        chosen = zoo.select("head_type=mlp", epoch="all")
        assert chosen.members["id"][:] == MLP
        frame = chosen.epochs.to_pandas()
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.epoch) == [0, 1, 2] * 4
        assert frame.test_accuracy.max() == max(chosen.epochs["test_accuracy"])

    def test_bytes_are_those_of_the_files(self, zoo: Zoo, tiny_zoo: Path) -> None:
        chosen = zoo.select("head_type=mlp", epoch="every-5")
        files = [tiny_zoo / name / file for name in MLP for file in ("model.epoch-00.safetensors", "model.safetensors")]
        assert chosen.sizes == [file.stat().st_size for file in files]
        assert chosen.bytes == sum(chosen.sizes)

    def test_folder_needs_no_download(self, zoo: Zoo) -> None:
        assert zoo.select().download() is None
        with pytest.raises(ConflictingArgumentsError):
            zoo.select().download("copy")

    def test_a_selection_that_does_not_fit_is_refused(self, zoo: Zoo) -> None:
        chosen = zoo.select(id="pt-0", epoch="all")
        final = MemberRef(MemberId.parse("pt-0"), "zoo", None)
        check_selection(chosen, each="checkpoint")
        check_selection(chosen[:0], fewest=0)
        check_selection(chosen[:1], each="member")
        for bad, each, value in (
            ("pt-0", "", "pt-0"),
            (chosen[:0], "", chosen[:0]),
            (chosen, "member", "pt-0"),
            (chosen.with_refs([*chosen, chosen[0]]), "checkpoint", "pt-0"),
            (
                chosen.with_refs([final, MemberRef(final.member, "zoo", 2)]),
                "checkpoint",
                "pt-0",
            ),  # one checkpoint by two names
        ):
            with pytest.raises(SelectionError) as raised:
                check_selection(bad, each=each)
            assert raised.value.value == value

    def test_selection_is_pickled(self, zoo: Zoo) -> None:
        chosen = zoo.select("head_type=mlp")
        assert pickle.loads(pickle.dumps(chosen)) == chosen

    def test_selection_does_not_import_torch(self, tiny_zoo: Path) -> None:
        code = (
            f"import sys; from vitzoo import Zoo; chosen = Zoo({str(tiny_zoo)!r}).select('head_type=mlp', epoch='all');"
            "chosen.members_table, chosen.epochs_table, chosen.bytes, chosen.ids, repr(chosen);"
            "print(*(name for name in ('torch', 'transformers', 'datasets') if name in sys.modules));"
            "chosen.epochs; print(*(name for name in ('torch', 'transformers') if name in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == []


class TestOnTheHub:
    """Selections of a Hub repo."""

    def test_select_downloads_tables_only(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        local = Zoo(tiny_zoo).select(objective="contrastive", epoch=range(0, 51, 2), min_train_loss=0)
        remote = Zoo(REPO).select(objective="contrastive", epoch=range(0, 51, 2), min_train_loss=0)
        assert names(remote) == names(local)
        assert remote.bytes == local.bytes
        assert remote.members_table.equals(local.members_table)
        assert remote.epochs_table.equals(local.epochs_table)
        assert str(remote[0]) == "org/vit-zoo/pt-2@0"
        assert not [request for request in hub.requests if "safetensors" in request.path]

    @pytest.mark.parametrize("to", [None, "copy"])
    def test_download_gets_the_selected_files_only(
        self, hub: Hub, tiny_zoo: Path, to: str | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        chosen = zoo.select("head_type=mlp,replicate=0", epoch="every-5")
        chosen.download(to, progress=False)
        assert capsys.readouterr() == ("", "")
        root = Path(to or zoo.source.root)
        weights = {str(file.relative_to(root)) for file in root.rglob("*.safetensors")}
        mlp = [name for name in MLP if name != "pt-0/ft-3"]
        assert weights == {
            f"{name}/{file}" for name in mlp for file in ("model.epoch-00.safetensors", "model.safetensors")
        }
        assert zoo_files(root).items() <= zoo_files(tiny_zoo).items()
        hub.requests.clear()
        copy = Zoo(to) if to else zoo
        for ref in chosen:
            copy[ref.member].load(epoch=ref.epoch, verify=True)
        assert not [request for request in hub.requests if request.host == "files"]

    def test_partial_copy_keeps_the_families_of_the_whole_zoo(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        zoo.select(stage="finetuning", epoch=[0, 2], id=["pt-0/ft-1", "pt-1/ft-0", "pt-2/ft-1"]).download("copy")
        copy = Zoo("copy")
        with_parents = ["pt-0", "pt-0/ft-1", "pt-1", "pt-1/ft-0", "pt-2", "pt-2/ft-1"]
        assert [str(member.id) for member in copy] == with_parents
        assert names(copy.select(objective="contrastive", epoch="all")) == ["pt-2/ft-1@0", "pt-2/ft-1@2"]
        assert copy.table("splits").equals(zoo.table("splits"))
        assert [fold.parts for fold in copy.splits("by_parent")] == [fold.parts for fold in zoo.splits("by_parent")]
        with pytest.raises(LeakError):
            copy.assert_no_leaks({"train": ["pt-0/ft-1"], "test": ["pt-1/ft-0"]})

    def test_manifest_says_which_weights_exist(self, hub: Hub, tiny_zoo: Path) -> None:
        files = {name: data for name, data in zoo_files(tiny_zoo).items() if "epoch-01" not in name}
        del files["pt-2/model.safetensors"]
        manifest = manifest_of(tiny_zoo, files, epochs="0,2")
        hub.create_repo(REPO).commit({**files, "manifest.json": manifest.to_bytes()})
        chosen = Zoo(REPO).select("id=pt-1|pt-2", epoch="every-5")
        assert names(chosen) == ["pt-1@0", "pt-1", "pt-2@0", "pt-2@2"]
        planned = plan_download(chosen.catalogue.source, chosen).files
        assert chosen.bytes == sum(file.size for path, file in planned.items() if path.suffix == ".safetensors")
        with pytest.raises(SelectionError) as raised:
            Zoo(REPO).select(epoch=1)
        assert (raised.value.value, raised.value.fix) == (1, "There are: 0, 2.")

    @pytest.mark.parametrize(
        ("table", "rows", "problem"),
        [
            ("members", "double", "duplicate rows"),
            ("epochs", "double", "duplicate rows"),
            ("members", "less", "has no row of pt-0"),
            ("epochs", "less", "has no row of pt-0"),
            ("epochs", "stranger", '"pt-7"'),
        ],
    )
    def test_table_that_differs_from_the_manifest_is_refused(
        self, hub: Hub, tiny_copy: Path, table: str, rows: str, problem: str
    ) -> None:
        file = tiny_copy / f"metadata/{table}.parquet"
        original = pq.read_table(file)
        ids = original.column("id").to_pylist()
        changed = {
            "double": lambda: pa.concat_tables([original, original[:1]]),
            "less": lambda: original.filter(pa.array([name != "pt-0" for name in ids])),
            "stranger": lambda: original.set_column(0, "id", pa.array([id.replace("pt-1", "pt-7") for id in ids])),
        }[rows]()
        pq.write_table(changed, file)
        plant(hub, tiny_copy)
        with pytest.raises(RecordError) as raised:
            Zoo(REPO).select()
        assert raised.value.path is not None
        assert raised.value.path.name == f"{table}.parquet"
        assert problem in raised.value.problem
