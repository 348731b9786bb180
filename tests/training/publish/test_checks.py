"""Test refusals before an upload: a repo with other files, a member that differs, a zoo with problems."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from safetensors.torch import load_file, save_file

from tests.hub import Answer, Before, Hub, Token
from tests.training.publish.zoos import METADATA, TO, assert_holds, flip, plan, push, train_again
from training.publish.plan import PlannedFile, plan_publication
from training.publish.push import check_target, publish
from training.publish.remote import RemoteFile
from vitzoo import records
from vitzoo.errors import HubError, RecordError, TrainingError, WeightsError
from vitzoo.records.epochs import Epochs
from vitzoo.records.json_files import json_sha256, write_json
from vitzoo.sources.folder import FolderSource


class TestRepos:
    def test_publish_refuses_a_repo_of_another_recipe(self, hub: Hub, token: Token, small: Path) -> None:
        push(small)
        head = hub.repo(TO).head
        record = records.load_zoo_record(small / "zoo.json")
        recipe = record.recipe | {"name": "other"}
        other = structs.replace(record, recipe=recipe, recipe_sha256=json_sha256(recipe))
        write_json(small / "zoo.json", other)
        with pytest.raises(TrainingError, match="another recipe"):
            push(small)
        with pytest.raises(TrainingError, match="another recipe"):
            check_target(other, to=TO, private=False, say=print)
        with pytest.raises(TrainingError, match="tables of org/vit-zoo"):
            publish(plan_publication(FolderSource(small), to="org/other", metadata_to=METADATA))
        assert hub.repo(TO).head == head
        assert ("model", "org/other") not in hub._service.store.repos

    @pytest.mark.parametrize(("repo_type", "path"), [("model", "pytorch_model.bin"), ("dataset", "train.csv")])
    def test_publish_refuses_a_repo_with_other_files(
        self, hub: Hub, token: Token, small: Path, repo_type: Any, path: str
    ) -> None:
        hub.create_repo(TO if repo_type == "model" else METADATA, repo_type).commit({path: b"x"})
        with pytest.raises(TrainingError, match=path):
            push(small)
        with pytest.raises(TrainingError, match=path):
            check_target(FolderSource(small).record, to=TO, private=False, say=print)
        assert not hub.requests.of(path="commit/|preupload|repos/create")

    def test_publish_refuses_an_unfinished_publication_of_other_members(
        self, hub: Hub, token: Token, small: Path
    ) -> None:
        with hub.fault(Answer(status=403), path="/commit/main", skip=3), pytest.raises(HubError):
            push(small, files_a_commit=10)
        repo = hub.repo(TO)
        head = repo.head
        assert "zoo.json" not in repo.files()
        other = Path(shutil.copytree(small, small.parent / "other"))
        shutil.rmtree(other / "pt-1")
        with pytest.raises(TrainingError, match=r"pt-1, pt-1/ft-0, pt-1/ft-1"):
            push(other)
        assert repo.head == head
        push(small)
        assert_holds(hub, plan(small))

    @pytest.mark.parametrize("finished", [True, False])
    def test_publish_never_replaces_a_published_member(
        self, hub: Hub, token: Token, small: Path, finished: bool
    ) -> None:
        if finished:
            push(small)
        else:
            with hub.fault(Answer(status=403), path="/commit/main", skip=3), pytest.raises(HubError):
                push(small, files_a_commit=10)
        head = hub.repo(TO).head
        train_again(small / "pt-1/ft-0")
        with hub.recorded() as requests, pytest.raises(TrainingError, match=r"^pt-1/ft-0 in org/vit-zoo"):
            push(small)
        assert hub.repo(TO).head == head
        assert not requests.of(path="commit/|preupload|repos/create")

    def test_publish_refuses_a_tag_of_another_version(self, hub: Hub, token: Token, small: Path) -> None:
        first = push(small, tag="v1")
        shutil.rmtree(small / "pt-2/ft-1")
        with pytest.raises(TrainingError, match='tag "v1"'):
            push(small, tag="v1")
        assert hub.repo(TO).head == first.commit
        second = push(small, tag="v2")
        assert hub.repo(TO).tags == {"v1": first.commit, "v2": second.commit}
        assert second.left_alone == 9

    def test_private_publication_refuses_a_public_repo(self, hub: Hub, token: Token, small: Path) -> None:
        publish(plan(small), private=True)
        assert hub.repo(TO).private
        assert hub.repo(METADATA, "dataset").private
        assert publish(plan(small), private=True).commits == 0
        hub.repo(TO).private = False
        with pytest.raises(TrainingError, match="is public"):
            publish(plan(small), private=True)


def test_remote_file_in_git_is_compared_with_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"planned")
    file = PlannedFile(path="file", size=7, sha256=sha256(b"planned").hexdigest(), content=path)
    blobs = [sha1(b"blob 7\0" + content).hexdigest() for content in (b"planned", b"altered")]
    planned, altered = (RemoteFile(7, blob, None) for blob in blobs)
    assert planned.is_same(file)
    path.write_bytes(b"altered")
    assert not altered.is_same(file)
    path.unlink()
    with pytest.raises(TrainingError, match="cannot be read"):
        planned.is_same(file)


def _nan_in_final_weights(zoo: Path) -> None:
    folder = zoo / "pt-2/ft-1"
    path = folder / "model.safetensors"
    tensors = {name: torch.full_like(tensor, float("nan")) for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    record = records.load_member_record(folder / "member.json")
    final = structs.replace(
        record.final_weights, size=path.stat().st_size, sha256=sha256(path.read_bytes()).hexdigest()
    )
    weights = tuple(final if w.epoch is None else w for w in record.weights)
    write_json(folder / "member.json", structs.replace(record, weights=weights))


def _seven_layers(zoo: Path) -> None:
    path = zoo / "pt-1/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 7}))


def _no_parent(zoo: Path) -> None:
    for path in (zoo / "pt-2").glob("*.*"):
        path.unlink()


class TestProblems:
    @pytest.mark.parametrize(
        ("spoil", "problem"),
        [
            (_nan_in_final_weights, "pt-2/ft-1: model.safetensors"),
            (_seven_layers, "config.json"),
            (_no_parent, "pt-2/ft-0: its parent pt-2"),
        ],
    )
    def test_publish_refuses_a_zoo_with_problems(
        self, hub: Hub, token: Token, small: Path, spoil: Callable[[Path], None], problem: str
    ) -> None:
        spoil(small)
        for epochs in ("last", "1"):  # the final weights are always published
            with pytest.raises(TrainingError) as error:
                push(small, epochs=Epochs(epochs))
            assert problem in error.value.problem
            assert f"vitzoo verify {small}" in (error.value.fix or "")
        assert not hub.requests.of(path="commit/|preupload|repos/create")
        assert set(hub._service.store.repos) == set()

    def test_publish_refuses_a_file_that_differs_from_its_record(self, hub: Hub, token: Token, small: Path) -> None:
        path = small / "pt-2/model.epoch-01.safetensors"
        data = flip(path)
        with pytest.raises(TrainingError, match=r"pt-2: model\.epoch-01"):
            push(small)
        assert not hub.requests.of(path="commit/|preupload|repos/create")
        path.write_bytes(data[:-1])
        with pytest.raises(WeightsError, match=f"{len(data) - 1} bytes"):
            plan(small)
        path.unlink()
        with pytest.raises(RecordError) as error:
            plan(small)
        assert error.value.path == path

    def test_publish_refuses_private_data_in_the_header_of_weights(self, hub: Hub, token: Token, small: Path) -> None:
        folder = small / "pt-1"
        path = folder / "model.epoch-01.safetensors"
        save_file(load_file(path), path, metadata={"format": "pt", "from": "/home/" + "somebody/x"})
        record = records.load_member_record(folder / "member.json")
        size, digest = path.stat().st_size, sha256(path.read_bytes()).hexdigest()
        weights = tuple(structs.replace(w, size=size, sha256=digest) if w.epoch == 1 else w for w in record.weights)
        write_json(folder / "member.json", structs.replace(record, weights=weights))
        with pytest.raises(TrainingError, match=r"pt-1/model.epoch-01.safetensors holds a local path"):
            push(small)
        assert set(hub._service.store.repos) == set()

    def test_publish_ignores_the_tables_of_the_folder(self, hub: Hub, token: Token, small: Path) -> None:
        shutil.rmtree(small / "metadata")
        push(small)
        assert_holds(hub, plan(small))

    def test_publish_refuses_a_record_that_changed_since_the_plan(self, hub: Hub, token: Token, small: Path) -> None:
        publication = plan(small)
        with open(small / "pt-1/config.json", "a") as file:
            file.write("\n")
        with pytest.raises(TrainingError, match=r"pt-1: config\.json"):
            publish(publication)

    def test_publish_compares_new_members_with_published_ones(
        self, hub: Hub, token: Token, small: Path, tmp_path: Path
    ) -> None:
        folder = small / "pt-2/ft-1"
        shutil.move(folder, tmp_path / "later")
        push(small)
        shutil.move(tmp_path / "later", folder)
        for name in ("model.epoch-01.safetensors", "metrics.jsonl"):  # as if it was trained
            shutil.copy(small / "pt-2/ft-0" / name, folder / name)
        record = records.load_member_record(folder / "member.json")
        copied = (folder / "model.epoch-01.safetensors").read_bytes()
        digest = sha256(copied).hexdigest()
        weights = [structs.replace(w, sha256=digest, size=len(copied)) if w.epoch == 1 else w for w in record.weights]
        write_json(folder / "member.json", structs.replace(record, weights=tuple(weights)))
        with pytest.raises(TrainingError, match="has the same weights as pt-2/ft-0 at epoch 1"):
            push(small)

    def test_publish_does_not_commit_a_file_that_is_altered_meanwhile(
        self, hub: Hub, token: Token, small: Path
    ) -> None:
        path = small / "pt-2/model.epoch-01.safetensors"
        publication = plan(small)
        with (
            hub.fault(Before(lambda: flip(path)), path="/commit/main", times=1),
            pytest.raises(WeightsError) as error,
        ):
            publish(publication, files_a_commit=27)
        assert error.value.path == path
        assert not any(name.startswith("pt-2/") for name in hub.repo(TO).files())

    def test_publish_refuses_a_file_that_is_deleted_meanwhile(self, hub: Hub, token: Token, small: Path) -> None:
        publication, path = plan(small), small / "pt-2/model.safetensors"
        with (
            hub.fault(Before(path.unlink), path="/commit/main", times=1),
            pytest.raises(WeightsError) as error,
        ):
            publish(publication, files_a_commit=10)
        assert error.value.path == path

    def test_publish_names_a_file_that_cannot_be_read(
        self, hub: Hub, token: Token, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publication = plan(small)
        for error, name in (
            (PermissionError(13, "Permission denied", "zoo/pt-1/model.safetensors"), "zoo/pt-1/model.safetensors"),
            (OSError(5, "Input/output error"), "pt-1/"),
        ):

            def fail(*_: Any, error: OSError = error, **__: Any) -> None:
                raise error

            monkeypatch.setattr("training.publish.remote.HfApi.preupload_lfs_files", fail)
            with pytest.raises(TrainingError, match="cannot be read") as caught:
                publish(publication)
            assert name in caught.value.problem
