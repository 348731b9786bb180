"""Selections: which checkpoints, their rows and bytes, what is said where there are none, and their download."""

import json
import logging
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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

MLP = ["pt-0/ft-1", "pt-0/ft-3", "pt-1/ft-1", "pt-2/ft-1"]


@pytest.fixture
def zoo(tiny_zoo: Path) -> Zoo:
    return Zoo(tiny_zoo)


def names(selection: Selection) -> list[str]:
    """The references without the zoo's name."""
    return [str(MemberRef(ref.member, None, ref.epoch)) for ref in selection]


def edit_member(root: Path, member: str, **values: Any) -> None:
    file = root / member / "member.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class TestWhich:
    """Members and epochs."""

    def test_all_final_weights(self, zoo: Zoo) -> None:
        chosen = zoo.select()
        assert names(chosen) == [str(member.id) for member in zoo]
        assert chosen.ids == [member.id for member in zoo]
        assert chosen.left_out == {}

    def test_as_the_readme_asks(self, zoo: Zoo) -> None:
        chosen = zoo.select(
            head_type="mlp", optimizer="sgd", learning_rate=0.05, objective="contrastive", epoch=range(0, 51, 2),
            max_test_accuracy=1,
        )  # fmt: skip
        assert names(chosen) == ["pt-2/ft-1@0", "pt-2/ft-1@2"]
        assert repr(chosen) == f"Selection(1 members, 2 checkpoints, {chosen.bytes / 1000:.1f} kB)"

    def test_values_of_every_kind(self, zoo: Zoo) -> None:
        expected = names(zoo.select(parent=["pt-0", "pt-1"]))
        assert names(zoo.select(parent=iter(["pt-0", "pt-1"]))) == expected
        assert names(zoo.select(parent=(f"pt-{number}" for number in range(2)))) == expected
        assert names(zoo.select(id=[MemberId(0), MemberRef(MemberId(1), "zoo"), "pt-2"])) == ["pt-0", "pt-1", "pt-2"]
        assert names(zoo.select(" head_type=mlp , replicate = 0")) == names(zoo.select(head_type="mlp", replicate=0))

    def test_a_copy_that_lacks_files(self, tiny_copy: Path) -> None:
        """Only what is there is chosen."""
        for name in ("pt-0/model.epoch-01.safetensors", "pt-1/model.safetensors", "pt-1/model.epoch-02.safetensors"):
            (tiny_copy / name).unlink()
        chosen = Zoo(tiny_copy).select(stage="pretraining", epoch="all")
        assert names(chosen) == ["pt-0@0", "pt-0@2", "pt-1@0", "pt-1@1", "pt-2@0", "pt-2@1", "pt-2@2"]
        assert names(Zoo(tiny_copy).select(stage="pretraining")) == ["pt-0", "pt-2"]
        assert chosen.bytes == sum((tiny_copy / f"pt-{n}/model.epoch-00.safetensors").stat().st_size * k
                                   for n, k in ((0, 2), (1, 2), (2, 3)))  # fmt: skip
        assert len(Zoo(tiny_copy).weights(chosen).matrix().values) == 7

    def test_the_text_means_the_same(self, zoo: Zoo) -> None:
        assert names(zoo.select("head_type=mlp")) == MLP
        assert (
            zoo.select("head_type=mlp") == zoo.select(head_type="mlp") == Zoo(zoo.source.root).select(head_type="mlp")
        )
        assert zoo.select("head_type=mlp,epoch=0|2") == zoo.select(head_type="mlp", epoch=[2, 0])
        assert zoo.select("stage=finetuning", head_type="mlp") == zoo.select("head_type=mlp")
        assert zoo.select("head_type=mlp,replicate=0") != zoo.select("head_type=mlp")
        assert len(zoo.select("head_width=null")) + len(zoo.select("head_width=8")) == 11
        assert names(zoo.select(id=MemberId(0, 1))) == names(zoo.select("id=pt-0/ft-1")) == ["pt-0/ft-1"]

    def test_the_objective_is_that_of_the_pre_training(self, zoo: Zoo) -> None:
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
    def test_epochs(self, zoo: Zoo, epoch: object, chosen: list[str]) -> None:
        assert names(zoo.select("id=pt-1", epoch=epoch)) == chosen

    def test_epochs_that_were_not_kept(self, tiny_copy: Path) -> None:
        """The last epoch's weights are the final ones, whichever of the two files there is."""
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
        with pytest.raises(SelectionError, match='"id=pt-1" removed the last ones left by epoch=1'):
            zoo.select("id=pt-1", epoch=1)

    def test_figures_are_the_checkpoint_s_own(self, zoo: Zoo) -> None:
        figures = {f"{member.id}@{record.epoch}": record.test_accuracy for member in zoo for record in member.metrics}
        known = sorted(accuracy for accuracy in figures.values() if accuracy is not None)
        limit = known[len(known) // 2]
        expected = {name for name, accuracy in figures.items() if accuracy is not None and accuracy >= limit}
        assert set(names(zoo.select(epoch="all", min_test_accuracy=limit))) == expected
        final = {str(member.id) for member in zoo if (member.metrics[-1].test_accuracy or 0) >= limit}
        assert set(names(zoo.select(min_test_accuracy=limit))) == final
        assert {str(one) for one in zoo.select(epoch=0, min_final_test_accuracy=limit).ids} == final

    def test_members_that_did_not_complete(self, tiny_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
        edit_member(tiny_copy, "pt-0/ft-1", status="diverged")
        edit_member(tiny_copy, "pt-2", status="diverged")
        zoo = Zoo(tiny_copy)
        with caplog.at_level(logging.WARNING):
            chosen = zoo.select(head_type="mlp", epoch="all")
        assert chosen.ids == [MemberId.parse(name) for name in MLP[1:]]
        assert chosen.left_out == {"diverged": 1}
        (record,) = caplog.records
        assert record.name == "vitzoo.zoo.selection"
        assert record.getMessage() == (
            'Members left out because of their status: 1 diverged; status="any" takes them too.'
        )
        assert repr(chosen).endswith("; left out: 1 diverged)")
        assert chosen[:3].left_out == {}
        caplog.clear()
        assert names(zoo.select(head_type="mlp", status="any")) == MLP
        assert names(zoo.select("head_type=mlp,status=any")) == MLP
        assert names(zoo.select("status=diverged")) == names(zoo.select(status=["diverged"])) == ["pt-0/ft-1", "pt-2"]
        assert names(zoo.select("status=diverged|completed", head_type="mlp")) == MLP
        assert not caplog.records
        with pytest.raises(SelectionError, match=r"No completed member meets epoch=last, id=pt-2, but 1 diverged"):
            zoo.select(id="pt-2")
        with pytest.raises(SelectionError, match=r'No member has status "failed"\. There are: completed, diverged\.'):
            zoo.select(status="failed")


class TestErrors:
    """A name, a value or an epoch that is not there, and a selection of nothing."""

    @pytest.mark.parametrize(
        ("conditions", "message"),
        [
            ({"haed_type": "mlp"}, r'There is no "haed_type" to choose by\. Nearest: head_type'),
            ({"head_type": "mpl"}, r'No member has head_type "mpl"\. Nearest: mlp\.'),
            ({"objective": "contrast"}, r'No member has objective "contrast"\. Nearest: contrastive\.'),
            ({"classes": "1"}, 'There is no "classes" to choose by'),
            ({"min_test_accuracy": 1.5}, r"No epoch has a test_accuracy of at least 1\.5: they go from 0\.\d+ to"),
            ({"epoch": 7}, r"No member has weights of epoch 7\. There are: 0, 1, 2\."),
            ({"epoch": [0, 7]}, r"No member has weights of epoch 7\."),
            ({"epoch": range(5, 9)}, r"No member has weights of epoch range\(5, 9\)\. There are: 0, 1, 2\."),
            ({"epoch": "some"}, '"some" is not a choice of epochs'),
            ({"epoch": True}, '"True" is not a choice of epochs'),
            ({"epoch": 1.0}, r'"1\.0" is not a choice of epochs'),
            ({"epoch": []}, "an empty list of alternatives"),
        ],
    )
    def test_unknown(self, zoo: Zoo, conditions: dict[str, object], message: str) -> None:
        with pytest.raises(SelectionError, match=message):
            zoo.select("", **conditions)  # pyright: ignore[reportArgumentType]

    def test_which_condition_emptied_it(self, zoo: Zoo) -> None:
        said = {"stage": "pretraining", "head_type": "linear", "replicate": 1, "optimizer": "sgd"}
        message = (
            'No checkpoint meets all conditions: "replicate=1" removed the last ones left by epoch=every-2, '
            "stage=pretraining, head_type=linear, though some checkpoint meets it"
        )
        with pytest.raises(SelectionError, match=f"^{re.escape(message)}$"):
            zoo.select(**said, epoch="every-2")
        with pytest.raises(SelectionError, match='"stage=pretraining" removed the last ones'):
            zoo.select("optimizer=sgd,replicate=1", stage="pretraining")

    @pytest.mark.parametrize(
        ("where", "conditions", "message"),
        [
            ("epochs=2", {}, r"epochs is how long a member was trained; .*Say epoch=|epoch=\.\.\."),
            ("", {"epochs": 2}, r"Choose checkpoints with epoch=.*min_epochs="),
            ("test_accuracy>=.8", {}, r'"test_accuracy>=\.8" is spelled min_test_accuracy=\.8\.'),
            ("", {"epoch": ""}, '"" is not a choice of epochs'),
        ],
    )
    def test_what_is_spelled_otherwise(self, tiny_zoo: Path, where: Any, conditions: Any, message: str) -> None:
        with pytest.raises(SelectionError, match=message):
            Zoo(tiny_zoo).select(where, **conditions)

    def test_metrics_that_are_cut(self, tiny_copy: Path) -> None:
        """Final weights never get the figures of an earlier epoch."""
        file = tiny_copy / "pt-1/metrics.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
        for epoch in ("last", "all", 1):
            with pytest.raises(RecordError, match=r"pt-1 has weights of epoch 2, but no metrics of it"):
                Zoo(tiny_copy).select(epoch=epoch)

    def test_said_twice(self, zoo: Zoo) -> None:
        for where, conditions in (
            ("head_type=mlp", {"head_type": "mlp"}),
            ("epoch=0", {"epoch": 1}),
            ("status=diverged", {"status": "failed"}),
        ):
            with pytest.raises(ConflictingArgumentsError):
                zoo.select(where, **conditions)  # pyright: ignore[reportArgumentType]

    def test_of_an_empty_zoo(self, tiny_copy: Path) -> None:
        for file in tiny_copy.rglob("member.json"):
            file.unlink()
        with pytest.raises(SelectionError, match="has no members to select"):
            Zoo(tiny_copy).select("head_type=mlp")

    def test_a_table_that_is_not_there(self, zoo: Zoo) -> None:
        with pytest.raises(SelectionError, match=r'There is no table "member"\. Nearest: members\.'):
            zoo.table("member")


class TestWhatItHolds:
    """A sequence with its rows."""

    def test_a_sequence(self, zoo: Zoo) -> None:
        chosen = zoo.select(head_type="mlp", epoch="all")
        assert len(chosen) == len(list(chosen)) == 12
        assert chosen[0] == MemberRef(MemberId(0, 1), zoo.source.name, 0)
        assert isinstance(chosen[1:3], Selection)
        assert list(chosen[1:3]) == [chosen[1], chosen[2]]
        assert chosen[-1] in chosen
        assert len({chosen, zoo.select("head_type=mlp", epoch="all"), chosen[1:]}) == 2
        assert len(chosen[:0].members_table) == len(chosen[:0].epochs_table) == chosen[:0].bytes == 0
        with pytest.raises(AttributeError):
            chosen.refs = ()  # pyright: ignore[reportAttributeAccessIssue]

    def test_its_references_load(self, zoo: Zoo) -> None:
        for ref in zoo.select("id=pt-0/ft-1", epoch="every-5"):
            model = zoo[ref.member].load(epoch=ref.epoch)
            assert model.config.name_or_path == str(ref)

    def test_rows(self, zoo: Zoo) -> None:
        chosen = zoo.select("head_type=mlp", epoch="every-5")
        assert chosen.members_table.column("id").to_pylist() == MLP
        rows = chosen.epochs_table.to_pylist()
        assert [(row["id"], row["epoch"]) for row in rows] == [(name, epoch) for name in MLP for epoch in (0, 2)]
        for row, ref in zip(rows, chosen, strict=True):
            assert row["test_accuracy"] == zoo[ref.member].metrics_at(ref.epoch).test_accuracy

    def test_datasets_and_pandas(self, zoo: Zoo) -> None:
        chosen = zoo.select("head_type=mlp", epoch="all")
        assert chosen.members["id"][:] == MLP
        frame = chosen.epochs.to_pandas()
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.epoch) == [0, 1, 2] * 4
        assert frame.test_accuracy.max() == max(chosen.epochs["test_accuracy"])

    def test_bytes(self, zoo: Zoo, tiny_zoo: Path) -> None:
        chosen = zoo.select("head_type=mlp", epoch="every-5")
        files = [tiny_zoo / name / file for name in MLP for file in ("model.epoch-00.safetensors", "model.safetensors")]
        assert chosen.sizes == [file.stat().st_size for file in files]
        assert chosen.bytes == sum(chosen.sizes)

    def test_of_a_folder_there_is_nothing_to_download(self, zoo: Zoo) -> None:
        assert zoo.select().download() is None
        with pytest.raises(ConflictingArgumentsError, match="is a local folder: there is nothing to download"):
            zoo.select().download("copy")

    def test_it_can_be_sent_to_another_process(self, zoo: Zoo) -> None:
        chosen = zoo.select("head_type=mlp")
        assert pickle.loads(pickle.dumps(chosen)) == chosen

    def test_without_torch(self, tiny_zoo: Path) -> None:
        code = (
            f"import sys; from vitzoo import Zoo; chosen = Zoo({str(tiny_zoo)!r}).select('head_type=mlp', epoch='all');"
            "chosen.members_table, chosen.epochs_table, chosen.bytes, chosen.ids, repr(chosen);"
            "print(*(name for name in ('torch', 'transformers', 'datasets') if name in sys.modules));"
            "chosen.epochs; print(*(name for name in ('torch', 'transformers') if name in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == []


class TestOnTheHub:
    """Of a Hub repo."""

    def test_nothing_but_tables_is_asked_for(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        here = Zoo(tiny_zoo).select(objective="contrastive", epoch=range(0, 51, 2), min_train_loss=0)
        there = Zoo(REPO).select(objective="contrastive", epoch=range(0, 51, 2), min_train_loss=0)
        assert names(there) == names(here)
        assert there.bytes == here.bytes
        assert there.members_table.equals(here.members_table)
        assert there.epochs_table.equals(here.epochs_table)
        assert str(there[0]) == "org/vit-zoo/pt-2@0"
        assert not [request for request in hub.requests if "safetensors" in request.path]

    @pytest.mark.parametrize("to", [None, "copy"])
    def test_exactly_these_are_downloaded(
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

    def test_a_copy_of_some_members_keeps_the_families(self, hub: Hub, tiny_zoo: Path) -> None:
        """Without their parents, children are what they were, and splits are those of the whole zoo."""
        plant(hub, tiny_zoo)
        zoo = Zoo(REPO)
        zoo.select(stage="finetuning", epoch=[0, 2], id=["pt-0/ft-1", "pt-1/ft-0", "pt-2/ft-1"]).download("copy")
        copy = Zoo("copy")
        assert [str(member.id) for member in copy] == ["pt-0/ft-1", "pt-1/ft-0", "pt-2/ft-1"]
        assert names(copy.select(objective="contrastive", epoch="all")) == ["pt-2/ft-1@0", "pt-2/ft-1@2"]
        assert copy.table("splits").equals(zoo.table("splits"))
        assert [fold.parts for fold in copy.splits("by_parent")] == [fold.parts for fold in zoo.splits("by_parent")]
        with pytest.raises(LeakError):
            copy.assert_no_leaks({"train": ["pt-0/ft-1"], "test": ["pt-1/ft-0"]})

    def test_what_was_published_in_part(self, hub: Hub, tiny_zoo: Path) -> None:
        """The manifest says which weights there are, not the records."""
        files = {name: data for name, data in zoo_files(tiny_zoo).items() if "epoch-01" not in name}
        del files["pt-2/model.safetensors"]
        manifest = manifest_of(tiny_zoo, files, epochs="0,2")
        hub.create_repo(REPO).commit({**files, "manifest.json": manifest.to_bytes()})
        chosen = Zoo(REPO).select("id=pt-1|pt-2", epoch="every-5")
        assert names(chosen) == ["pt-1@0", "pt-1", "pt-2@0", "pt-2@2"]
        planned = plan_download(chosen.catalogue.source, chosen).files
        assert chosen.bytes == sum(file.size for path, file in planned.items() if path.suffix == ".safetensors")
        with pytest.raises(SelectionError, match=r"No member has weights of epoch 1\. There are: 0, 2\."):
            Zoo(REPO).select(epoch=1)

    @pytest.mark.parametrize(
        ("table", "rows", "message"),
        [
            ("members", "double", "duplicate rows"),
            ("epochs", "double", "duplicate rows"),
            ("members", "less", "has no row of pt-0, which the manifest names"),
            ("epochs", "less", "has no row of pt-0, which the manifest names"),
            ("epochs", "stranger", "names no such member"),
        ],
    )
    def test_tables_of_another_zoo(self, hub: Hub, tiny_copy: Path, table: str, rows: str, message: str) -> None:
        file = tiny_copy / f"metadata/{table}.parquet"
        found = pq.read_table(file)
        ids = found.column("id").to_pylist()
        changed = {
            "double": lambda: pa.concat_tables([found, found[:1]]),
            "less": lambda: found.filter(pa.array([one != "pt-0" for one in ids])),
            "stranger": lambda: found.set_column(0, "id", pa.array([one.replace("pt-1", "pt-7") for one in ids])),
        }[rows]()
        pq.write_table(changed, file)
        plant(hub, tiny_copy)
        with pytest.raises(RecordError, match=message):
            Zoo(REPO).select()
