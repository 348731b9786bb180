"""A sound zoo has no problems, in a folder and in a Hub repo; evaluations; what a digest proves."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hub.server import Hub
from tests.published import REPO, manifest_of, plant, zoo_files
from tests.verification.damage import (
    CHILD,
    LAST,
    MLP,
    PARENT,
    change,
    edit_json,
    edit_lines,
    edit_record,
    flip,
    publish,
    record_again,
    weights,
)
from vitzoo import Zoo
from vitzoo.errors import AuthenticityError, HubError, MemberNotFoundError, SelectionError
from vitzoo.ids import MemberId
from vitzoo.records import layout
from vitzoo.records.epochs import Epochs
from vitzoo.records.files import file_sha256
from vitzoo.records.json_files import json_sha256
from vitzoo.sources.folder import FolderSource
from vitzoo.sources.hub import HubSource
from vitzoo.tables.catalogue import write_tables
from vitzoo.verification.verify import verify_zoo


def test_a_sound_zoo_has_no_problems(tiny_zoo: Path) -> None:
    reports: list[tuple[int, int]] = []
    found = verify_zoo(Zoo(tiny_zoo), report=lambda done, total: reports.append((done, total)))
    assert found.problems == ()
    assert (found.members, found.files, found.digest, found.authenticated) == (11, 11 * 9, None, False)
    assert found.bytes == sum(path.stat().st_size for path in tiny_zoo.glob("pt-*/**/*") if path.is_file())
    assert len(reports) == found.files
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert {total for _, total in reports} == {found.bytes} == {reports[-1][0]}


@pytest.mark.parametrize("epochs", ["all", "0,1"])
def test_a_sound_published_zoo_has_no_problems(zoo: Path, epochs: str) -> None:
    digest = publish(zoo, epochs=epochs)
    for opened in (Zoo(zoo), Zoo(zoo)):
        found = verify_zoo(opened)
        assert found.problems == ()
        assert (found.members, found.digest, found.authenticated) == (6, digest, False)
        for file in zoo.glob("pt-*/**/model*.safetensors"):  # unpublished weights may exist, or not
            if not Epochs(epochs).of([layout.parse_weights_name(file.name)]):
                file.unlink()
    found = verify_zoo(Zoo(zoo, digest=digest))
    assert (found.problems, found.authenticated) == ((), True)
    assert found.files == len(Zoo(zoo).source.manifest.files)  # type: ignore[union-attr]


def test_only_the_selected_members_and_epochs_are_checked(zoo: Path) -> None:
    flip(zoo, PARENT, 1)
    flip(zoo, CHILD, 1)
    chosen = verify_zoo(Zoo(zoo), members=[MemberId(0, 0), MemberId(1)])
    assert [str(problem.member) for problem in chosen.problems] == [CHILD]
    assert chosen.members == 2
    last = verify_zoo(Zoo(zoo), epochs=Epochs("last"))
    assert (last.problems, last.files) == ((), 6 * (5 + 1))
    with pytest.raises(MemberNotFoundError, match="Nearest") as unknown:
        verify_zoo(Zoo(zoo), members=[MemberId(3)])
    assert unknown.value.member == MemberId(3)


def test_epochs_without_weights_are_refused(zoo: Path) -> None:
    with pytest.raises(SelectionError) as unknown:
        verify_zoo(Zoo(zoo), epochs=Epochs("99"))
    assert (unknown.value.value, unknown.value.fix) == ("99", "There are: 0, 1, 2, last.")
    for file in zoo.glob("pt-*/**/model.safetensors"):
        file.unlink()
    found = verify_zoo(Zoo(zoo), epochs=Epochs("last")).problems
    assert [problem.what for problem in found] == ["model.safetensors: missing, though member.json names it"] * 6
    publish(zoo, epochs="last")
    with pytest.raises(SelectionError):
        verify_zoo(Zoo(zoo), members=[MemberId(0)], epochs=Epochs("99"))


def test_files_of_git_and_of_downloads_are_ignored_at_the_top_only(zoo: Path) -> None:
    publish(zoo)
    for name in (".git/config", ".cache/huggingface/x.metadata", ".training/members/pt-0", ".gitattributes"):
        (zoo / name).parent.mkdir(parents=True, exist_ok=True)
        (zoo / name).touch()
    assert verify_zoo(Zoo(zoo)).problems == ()
    (zoo / CHILD / ".cache").mkdir()
    (zoo / CHILD / ".cache/x.py").touch()
    (problem,) = verify_zoo(Zoo(zoo)).problems
    assert (str(problem.member), problem.what) == (CHILD, '".cache/x.py": not named by manifest.json')
    assert verify_zoo(Zoo(zoo), members=[MemberId(1)]).problems == ()


def test_many_unnamed_files_make_one_problem(zoo: Path) -> None:
    publish(zoo)
    (zoo / "more").mkdir()
    for number in range(100):
        (zoo / f"more/{number:02d}.py").touch()
    (problem,) = verify_zoo(Zoo(zoo)).problems
    assert problem.what == '"more/00.py", "more/01.py" and 98 more: not named by manifest.json'


def test_unnamed_weights_of_other_epochs_are_found(zoo: Path) -> None:
    publish(zoo)
    weights(zoo, CHILD, 7).write_bytes(b"no weights")
    found = verify_zoo(Zoo(zoo), epochs=Epochs("last")).problems
    assert [problem.what for problem in found] == [
        f"model.epoch-07.safetensors: not named by {name}.json" for name in ("member", "manifest")
    ]


@pytest.mark.parametrize("architecture", [None, {"hidden_size": 16}, [], {"num_attention_heads": 2}])
def test_configs_are_compared_with_the_keys_of_the_recipe(zoo: Path, architecture: object) -> None:
    record = json.loads((zoo / "zoo.json").read_text())
    recipe = {key: value for key, value in record["recipe"].items() if key != "architecture"}
    if architecture is not None:
        recipe["architecture"] = architecture
    edit_json(zoo / "zoo.json", recipe=recipe, recipe_sha256=json_sha256(recipe))
    edit_json(zoo / CHILD / "config.json", num_attention_heads=4)
    found = [problem.what for problem in verify_zoo(Zoo(zoo)).problems]
    expected = "config.json: says num_attention_heads 4, but the recipe in zoo.json 2"
    assert found == ([expected] if architecture == {"num_attention_heads": 2} else [])


def test_weights_of_a_diverged_member_must_be_finite_while_they_have_metrics(zoo: Path) -> None:
    change(zoo, LAST, 2, lambda content: content.__setitem__(slice(-4, None), np.float32(np.nan).tobytes()))
    weights(zoo, LAST, None).unlink()
    edit_lines(zoo / LAST / "metrics.jsonl", lambda lines: lines.pop())
    record = json.loads((zoo / LAST / "member.json").read_text())
    record["weights"][2]["sha256"] = file_sha256(weights(zoo, LAST, 2))
    edit_record(zoo, LAST, status="diverged", weights=record["weights"][:3])
    assert verify_zoo(Zoo(zoo), evaluate=99).problems == ()
    change(zoo, LAST, 1, lambda content: content.__setitem__(slice(-4, None), np.float32(np.nan).tobytes()))
    record_again(zoo, LAST, 1, also="metrics")
    (problem,) = verify_zoo(Zoo(zoo)).problems
    assert problem.what == "model.epoch-01.safetensors: vit.layernorm.weight holds NaN or infinity"


class TestEvaluation:
    def test_measured_metrics_equal_the_recorded_ones(self, tiny_zoo: Path) -> None:
        found = verify_zoo(Zoo(tiny_zoo), evaluate=3, epochs=Epochs("0"))
        assert found.problems == ()
        assert [str(comparison.member) for comparison in found.evaluations] == ["pt-0", "pt-0/ft-2", "pt-1/ft-1"]
        for comparison in found.evaluations:
            final = Zoo(tiny_zoo)[comparison.member].metrics[-1]
            assert (comparison.recorded, comparison.epoch, comparison.exact) == (final.test_accuracy, 2, True)
        embedding = verify_zoo(Zoo(tiny_zoo), members=[MemberId(2)], evaluate=99).evaluations[0]
        assert embedding.metric == "k-NN accuracy of the features"
        assert embedding.recorded == embedding.measured == Zoo(tiny_zoo)["pt-2"].metrics[-1].test_knn_accuracy

    @pytest.mark.parametrize(("images", "problems"), [(0, 0), (1, 0), (-2, 1), (None, 1)])
    def test_a_metric_may_differ_by_one_image(self, zoo: Path, images: int | None, problems: int) -> None:
        def edit(lines: list[dict[str, Any]]) -> None:
            before = lines[-1]["test_accuracy"]
            lines[-1]["test_accuracy"] = None if images is None else (round(before * 217) + images) / 217

        edit_lines(zoo / PARENT / "metrics.jsonl", edit)
        write_tables(FolderSource(zoo))
        found = verify_zoo(Zoo(zoo), members=[MemberId(0)], evaluate=1)
        assert len(found.problems) == problems
        assert found.evaluations[0].exact == (images == 0)
        if problems:
            assert re.search(
                r'accuracy on 217 test samples of "digits-0-5" is 0\.\d{4} now, recorded', found.problems[0].what
            )

    def test_other_images_are_a_problem(self, zoo: Path) -> None:
        edit_record(zoo, dataset_fingerprint="0" * 64)
        found = verify_zoo(Zoo(zoo), members=[MemberId(0, 0)], evaluate=1)
        assert found.evaluations == ()
        assert re.search('with fingerprint "?000000000000', found.problems[0].what)
        assert found.problems[0].fix == "Install the revision that it was trained on."

    def test_an_unavailable_data_set_asks_for_it(self, zoo: Path, tmp_path: Path) -> None:
        edit_record(zoo, dataset="org/missing", dataset_spec={"name": "org/missing"})
        (tmp_path / "empty").mkdir()
        for data in (None, {"org/missing": tmp_path / "empty"}, {"org/missing": tmp_path / "nowhere"}):
            found = verify_zoo(Zoo(zoo), members=[MemberId(0, 0)], evaluate=1, data=data)
            assert found.evaluations == ()
            problem = found.problems[-1]
            assert "org/missing" in problem.what
            assert "--data" in problem.fix
            assert "train the member again" not in problem.fix


class TestDigest:
    def test_a_consistent_copy_has_another_digest(self, zoo: Path) -> None:
        digest = publish(zoo)
        flip(zoo)
        record_again(zoo, also="metrics")
        assert publish(zoo) != digest
        assert verify_zoo(Zoo(zoo)).problems == ()
        with pytest.raises(AuthenticityError, match=digest):
            Zoo(zoo, digest=digest)

    def test_altered_files_are_found(self, zoo: Path) -> None:
        digest = publish(zoo)
        flip(zoo)
        (zoo / MLP / "timing.jsonl").write_text("")
        (zoo / LAST / "extra.bin").touch()
        found = verify_zoo(Zoo(zoo, digest=digest))
        assert found.authenticated
        assert [(str(p.member), p.what.partition(":")[0]) for p in found.problems] == [
            (CHILD, "model.epoch-01.safetensors"),
            (MLP, "timing.jsonl"),
            (LAST, '"extra.bin"'),
        ]
        assert "was altered" in found.problems[0].what
        assert "is truncated" in found.problems[1].what


class TestHub:
    def test_a_sound_zoo_has_no_problems(self, hub: Hub, zoo: Path) -> None:
        digest = publish(zoo)
        plant(hub, zoo)
        found = verify_zoo(Zoo(REPO, digest=digest), evaluate=1)
        assert (found.problems, found.digest, found.authenticated) == ((), digest, True)
        assert (found.members, len(found.evaluations)) == (6, 1)

    def test_missing_and_wrong_files_are_found(self, hub: Hub, zoo: Path) -> None:
        publish(zoo)
        files = zoo_files(zoo)
        manifest = manifest_of(zoo, files)
        del files[f"{CHILD}/config.json"]
        del files[f"{CHILD}/model.epoch-00.safetensors"]
        files[f"{MLP}/model.safetensors"] = files[f"{MLP}/model.epoch-01.safetensors"]
        hub.create_repo(REPO).commit({**files, str(layout.MANIFEST): manifest.to_bytes()})
        checked = verify_zoo(Zoo(REPO), members=[MemberId(0, 0), MemberId(0, 1)])
        found = [(str(problem.member), problem.what) for problem in checked.problems]
        assert [member for member, _ in found] == [CHILD, CHILD, MLP, MLP, MLP]
        assert "has no pt-0/ft-0/config.json" in found[0][1]
        assert "has no pt-0/ft-0/model.epoch-00.safetensors" in found[1][1]
        assert re.match("model.safetensors: was altered: .*, member.json says", found[2][1])
        assert re.match("model.safetensors: was altered: .*, manifest.json says", found[3][1])
        assert found[4][1].startswith("epoch 2 has the same weights as pt-0/ft-1 at epoch 1")

    def test_unnamed_files_are_found_and_not_downloaded(self, hub: Hub, zoo: Path) -> None:
        publish(zoo)
        names = ["config.json", "evil.py", "pt-9/model.safetensors", f"{CHILD}/pytorch_model.bin", f"{CHILD}/.x/y.py"]
        plant(hub, zoo).commit(dict.fromkeys([*names, ".gitattributes"], b"evil"))
        found = verify_zoo(Zoo(REPO))
        assert [(str(problem.member), problem.what) for problem in found.problems] == [
            ("None", '"config.json", "evil.py" and 1 more: not named by manifest.json'),
            (CHILD, '".x/y.py", "pytorch_model.bin": not named by manifest.json'),
        ]
        assert found.problems[0].fix.startswith("Do not load it")
        assert (found.files, found.unlisted) == (len(zoo_files(zoo)), None)

    def test_weights_of_an_earlier_publication_are_compared_with_member_json(self, hub: Hub, zoo: Path) -> None:
        publish(zoo, epochs="last")
        files = zoo_files(zoo)
        named = {name: data for name, data in files.items() if ".epoch-" not in name}
        manifest = manifest_of(zoo, named, epochs="last")
        repo = hub.create_repo(REPO)
        repo.commit({**files, str(layout.MANIFEST): manifest.to_bytes()})
        child = [MemberId(0, 0)]
        assert verify_zoo(Zoo(REPO), members=child).problems == ()
        left = f"{CHILD}/model.epoch-01.safetensors"
        repo.commit({left: files[left][:-1] + b"x", left.replace("01", "07"): files[left]})
        found = [problem.what for problem in verify_zoo(Zoo(REPO), members=child).problems]
        assert re.match("model.epoch-07.safetensors: not named by member.json", found[0])
        assert re.match("model.epoch-07.safetensors: not named by manifest.json", found[1])
        assert re.match("model.epoch-01.safetensors: was altered: .*, member.json says", found[2])
        assert len(found) == 3

    def test_a_missing_list_of_files_is_reported(self, hub: Hub, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        publish(zoo)
        plant(hub, zoo).commit({"evil.py": b""})
        assert len(verify_zoo(Zoo(REPO), members=[MemberId(1)]).problems) == 1
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        found = verify_zoo(Zoo(REPO), members=[MemberId(1)])
        assert (found.problems, found.unlisted) == (
            (),
            "only the cache may be used (local_files_only, HF_HUB_OFFLINE).",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

        def refuse(source: HubSource) -> list[str]:
            raise HubError(f"{source.name} could not be read.", repo=REPO, status=503)

        monkeypatch.setattr(HubSource, "listed_files", refuse)
        found = verify_zoo(Zoo(REPO), members=[MemberId(1)])
        assert (found.problems, found.unlisted) == ((), f"{REPO} could not be read.")
