"""Parts of a zoo: copies with some weights, and a member's folder alone."""

import json
import pickle
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.hub.server import Hub
from tests.published import REPO, plant, zoo_files
from training.publish.plan import plan_publication
from vitzoo import VitZooConfig, VitZooModel, Zoo
from vitzoo.cli import app
from vitzoo.errors import (
    ConflictingArgumentsError,
    EpochNotFoundError,
    MemberIdError,
    MemberNotFoundError,
    RecordError,
    TrainingError,
    VitZooError,
)
from vitzoo.ids import MemberId
from vitzoo.records.epochs import Epochs
from vitzoo.sources.download import find_weights, plan_download, run_download
from vitzoo.sources.folder import FolderSource
from vitzoo.verification.verify import Verification, verify_zoo

LINEAR = ["pt-0/ft-0", "pt-0/ft-2", "pt-1/ft-0", "pt-2/ft-0"]


def download(where: str, *, epochs: str = "last", to: str = "copy") -> None:
    source = Zoo(REPO)
    weights = find_weights(source.source, members=source.select(where).ids if where else None, epochs=Epochs(epochs))
    run_download(plan_download(source.source, weights, to=to))


def verify(folder: str = "copy", **options: object) -> Verification:
    return verify_zoo(Zoo(folder), **options)  # type: ignore[arg-type]


@pytest.fixture
def copy(hub: Hub, tiny_zoo: Path, shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A copy with the final weights of the linear children."""
    revision = plant(hub, tiny_zoo).head
    where = "stage=finetuning,head_type=linear"
    downloaded = shared("partial-copy", lambda folder: download(where, to=str(folder)))
    copy = Path(shutil.copytree(downloaded, "copy"))
    record = json.loads((copy / "copy.json").read_text())
    (copy / "copy.json").write_text(json.dumps(record | {"revision": revision}))
    return copy


class TestCopy:
    def test_a_partial_copy_has_its_parents_records_and_no_problems(self, copy: Path) -> None:
        record = json.loads((copy / "copy.json").read_text())
        assert record["weights"] == [f"{member}/model.safetensors" for member in LINEAR]
        assert record["repo"] == REPO
        assert [str(member.id) for member in Zoo(copy)] == sorted([*LINEAR, "pt-0", "pt-1", "pt-2"])
        assert not list(copy.glob("pt-?/*.safetensors"))
        result = verify(evaluate=9)
        assert not result.problems
        assert (result.members, len(result.evaluations)) == (7, 4)
        assert result.copied is not None
        assert not verify(members=[MemberId(0, 0)]).problems

    def test_a_partial_copy_is_a_part_of_the_zoo_of_its_digest(self, copy: Path) -> None:
        digest = Zoo(copy).source.manifest.digest  # type: ignore[union-attr]
        done = CliRunner().invoke(app, ["verify", "copy", "--digest", digest])
        assert done.exit_code == 0, done.output
        assert f"a part of the zoo of digest {digest}" in done.stdout
        assert "A partial copy of org/vit-zoo, with 4 weights files." in done.stdout

    def test_tree_show_and_export_work_on_a_partial_copy(self, copy: Path) -> None:
        tree = CliRunner().invoke(app, ["tree", "copy"]).stdout
        assert re.findall(r"pt-\d(?:/ft-\d)?", tree) == sorted([*LINEAR, "pt-0", "pt-1", "pt-2"])
        assert tree.count("(records only)") == 3
        shown = CliRunner().invoke(app, ["show", "./copy/pt-0/ft-0"])
        assert "parent pt-0" in shown.stdout
        exported = CliRunner().invoke(app, ["export", "./copy/pt-0/ft-0", "out", "--to", "timm"])
        assert exported.exit_code == 0, exported.output
        shutil.rmtree(copy / "pt-0/ft-0")
        shutil.copytree(copy / "pt-1/ft-0", "alone/pt-1/ft-0")
        shutil.copy(copy / "zoo.json", "alone")
        alone = CliRunner().invoke(app, ["show", "./alone/pt-1/ft-0"])
        assert "parent pt-1 (not in this folder)" in alone.stdout
        tree = CliRunner().invoke(app, ["tree", "alone"]).stdout
        assert re.findall(r"pt-\d(?:/ft-\d)?", tree) == ["pt-1", "pt-1/ft-0"]
        assert "pt-1  (not in this folder)" in tree

    def test_weights_that_a_partial_copy_lacks_are_named_with_a_command_that_gets_them(self, copy: Path) -> None:
        zoo = Zoo(copy)
        parent = zoo["pt-0/ft-0"].parent
        assert parent is not None
        assert parent.metrics
        for missing in (parent.load, parent.load_header, lambda: VitZooModel.from_pretrained("./copy/pt-0")):
            with pytest.raises(EpochNotFoundError) as error:
                missing()
            assert error.value.epochs == []
            assert error.value.fix is not None
        with pytest.raises(MemberNotFoundError) as no_member:
            zoo["pt-0/ft-1"]
        assert no_member.value.fix is not None
        command = no_member.value.fix.partition("vitzoo ")[2].split()
        assert CliRunner().invoke(app, command).exit_code == 0
        zoo = Zoo(copy)
        assert zoo["pt-0/ft-1"].load(verify=True)
        assert len(zoo.select()) == 5
        assert not verify().problems

    def test_downloads_to_one_copy_add_up(self, copy: Path, tiny_zoo: Path) -> None:
        download("id=pt-0", epochs="0,1")
        assert not verify().problems
        assert Zoo(copy)["pt-0"].epochs == [0, 1]
        assert len(json.loads((copy / "copy.json").read_text())["weights"]) == 6
        download("", epochs="all")
        assert not (copy / "copy.json").exists()
        assert zoo_files(copy) == zoo_files(tiny_zoo)
        download("id=pt-0")  # a whole copy stays whole
        assert not (copy / "copy.json").exists()
        assert not verify().problems

    def test_a_file_that_copy_json_claims_is_missed_by_verify(self, copy: Path) -> None:
        for name in ("pt-0/ft-0/model.safetensors", "pt-1/metrics.jsonl"):
            (copy / name).unlink()
        found = [(str(problem.member), problem.what) for problem in verify().problems]
        assert ("pt-0/ft-0", "model.safetensors: missing, though manifest.json names it") in found
        assert ("pt-1", "metrics.jsonl: missing, though manifest.json names it") in found

    def test_a_file_that_copy_json_does_not_claim_is_still_checked(self, copy: Path) -> None:
        """A download that was killed before copy.json leaves such files."""
        claimed = (copy / "copy.json").read_bytes()
        download("head_type=mlp", epochs="0,1")
        (copy / "copy.json").write_bytes(claimed)
        (copy / "pt-1/ft-1/member.json").unlink()
        assert not verify().problems
        file = copy / "pt-0/ft-1/model.epoch-00.safetensors"
        file.unlink()
        shutil.copy(copy / "pt-0/ft-1/model.epoch-01.safetensors", file)
        assert {str(problem.member) for problem in verify().problems} == {"pt-0/ft-1"}

    def test_damaged_copy_json_is_a_problem(self, copy: Path) -> None:
        record = json.loads((copy / "copy.json").read_text())
        for change in (
            {"weights": ["pt-9/model.safetensors"]},
            {"weights": ["pt-0/config.json"]},
            {"weights": ["../x"]},
            {"repo": "$(x)"},
            {"revision": "main"},
            {"more": 1},
        ):
            (copy / "copy.json").write_text(json.dumps(record | change))
            with pytest.raises(RecordError) as error:
                _ = Zoo(copy).source.copied
            assert error.value.path == copy.absolute() / "copy.json"
        assert any("copy.json" in problem.what for problem in verify().problems)

    def test_a_partial_copy_is_not_published(self, copy: Path) -> None:
        with pytest.raises(TrainingError) as error:
            plan_publication(FolderSource(copy), to="me/zoo")
        assert error.value.fix is not None

    def test_a_pickled_zoo_of_a_partial_copy_keeps_its_part(self, copy: Path) -> None:
        zoo = Zoo(copy)
        assert zoo.source.copied is not None
        assert pickle.loads(pickle.dumps(zoo)).source.copied == zoo.source.copied

    def test_a_childs_parent_sha256_is_compared_with_the_manifest(self, copy: Path) -> None:
        for name in ("pt-0/ft-0", "pt-0"):  # both records agree with each other, and with no weights
            file = copy / name / "member.json"
            record = json.loads(file.read_text())
            record["parent_sha256"] = record["parent_sha256"] and "0" * 64
            for weights in record["weights"] if name == "pt-0" else ():
                weights["sha256"] = "0" * 64
            file.write_text(json.dumps(record))
        found = [problem.what for problem in verify().problems if problem.member == MemberId(0, 0)]
        assert any(re.search(r'says parent_sha256 "0{16}", but manifest.json says "\w{16}"', what) for what in found)


class TestTogether:
    def test_downloads_to_one_folder_wait_for_each_other(self, hub: Hub, tiny_zoo: Path) -> None:
        plant(hub, tiny_zoo)
        chosen = ["head_type=mlp", "head_type=linear", "stage=pretraining", ""]
        errors: list[Exception] = []

        def run(where: str) -> None:
            try:
                download(where)
            except (VitZooError, OSError) as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(where,)) for where in chosen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not errors
        assert len(json.loads(Path("copy/copy.json").read_text())["weights"]) == 11
        assert not verify().problems

    def test_a_folder_that_a_killed_download_left_is_new(self, copy: Path) -> None:
        Path("new/.cache/huggingface").mkdir(parents=True)
        Path("new/.manifest.json.partial").touch()
        download("id=pt-0", to="new")
        Path("mine").mkdir()
        Path("mine/zoo.txt").touch()
        with pytest.raises(ConflictingArgumentsError):
            download("id=pt-0", to="mine")


class TestAlone:
    @pytest.mark.parametrize("member", ["pt-0/ft-0", "pt-0/ft-1", "pt-2"])  # linear, mlp, embedding
    def test_a_members_folder_alone_loads_every_epoch(self, tiny_zoo: Path, member: str) -> None:
        shutil.copytree(tiny_zoo / member, Path("x") / member)
        shutil.copytree(tiny_zoo / member, "renamed")
        expected = Zoo(tiny_zoo)[member].load(epoch=1).state_dict()
        names: list[tuple[str | Path, dict[str, Any]]] = [
            (f"./x/{member}", {}),
            (Path("renamed"), {}),
            ("x", {"subfolder": member}),
        ]
        for name, options in names:
            loaded = VitZooModel.from_pretrained(name, epoch=1, **options).state_dict()
            assert all(torch.equal(loaded[key], expected[key]) for key in expected)
            assert VitZooConfig.from_pretrained(name, epoch=1, **options).head_type

    def test_an_epoch_that_a_lone_folder_lacks_is_refused(self, tiny_zoo: Path) -> None:
        shutil.copytree(tiny_zoo / "pt-0", "alone", ignore=shutil.ignore_patterns("ft-*"))
        with pytest.raises(EpochNotFoundError) as error:
            VitZooModel.from_pretrained("alone", epoch=9)
        assert (error.value.epoch, list(error.value.epochs)) == (9, [0, 1, 2])
        with pytest.raises(ConflictingArgumentsError):
            VitZooModel.from_pretrained("alone", epoch=1, variant="epoch-02")
        Path("empty").mkdir()
        with pytest.raises(MemberIdError):
            VitZooModel.from_pretrained("empty", epoch=1)
