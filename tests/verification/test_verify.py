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
    edit_lines,
    edit_record,
    flip,
    publish,
    record_anew,
    weights,
)
from vitzoo import Zoo, layout
from vitzoo.errors import AuthenticityError, MemberNotFoundError
from vitzoo.folder import FolderSource
from vitzoo.ids import MemberId
from vitzoo.metadata import write_tables
from vitzoo.selection import Epochs
from vitzoo.verification.verify import verify_zoo
from vitzoo.weights.header import file_sha256


def test_a_sound_zoo(tiny_zoo: Path) -> None:
    found = verify_zoo(Zoo(tiny_zoo))
    assert found.problems == ()
    assert (found.members, found.files, found.digest, found.authenticated) == (11, 11 * 9, None, False)
    assert found.bytes == sum(path.stat().st_size for path in tiny_zoo.glob("pt-*/**/*") if path.is_file())


@pytest.mark.parametrize("epochs", ["all", "last", "every-2", "0,1"])
def test_a_sound_published_zoo(zoo: Path, epochs: str) -> None:
    digest = publish(zoo, epochs=epochs)
    for opened in (Zoo(zoo), Zoo(zoo)):
        found = verify_zoo(opened)
        assert found.problems == ()
        assert (found.members, found.digest, found.authenticated) == (6, digest, False)
        for file in zoo.glob("pt-*/**/model*.safetensors"):  # what was left out may be there, or not
            if not Epochs(epochs).of([layout.parse_weights_name(file.name)]):
                file.unlink()
    found = verify_zoo(Zoo(zoo, digest=digest))
    assert (found.problems, found.authenticated) == ((), True)
    assert found.files == len(Zoo(zoo).source.manifest.files)  # type: ignore[union-attr]


def test_a_choice_of_members_and_epochs(zoo: Path) -> None:
    flip(zoo, PARENT, 1)
    flip(zoo, CHILD, 1)
    chosen = verify_zoo(Zoo(zoo), members=[MemberId(0, 0), MemberId(1)])
    assert [str(problem.member) for problem in chosen.problems] == [CHILD]
    assert chosen.members == 2
    last = verify_zoo(Zoo(zoo), epochs=Epochs("last"))
    assert (last.problems, last.files) == ((), 6 * (5 + 1))
    with pytest.raises(MemberNotFoundError, match=r"The zoo has no member pt-3\. Nearest"):
        verify_zoo(Zoo(zoo), members=[MemberId(3)])


def test_progress(tiny_zoo: Path) -> None:
    reports: list[tuple[int, int]] = []
    found = verify_zoo(Zoo(tiny_zoo), report=lambda done, total: reports.append((done, total)))
    assert len(reports) == found.files
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert {total for _, total in reports} == {found.bytes} == {reports[-1][0]}


def test_weights_of_a_diverged_member(zoo: Path) -> None:
    """What it has is looked at; beyond its last figures numbers need not be finite, and nothing need be there."""
    change(zoo, LAST, 2, lambda content: content.__setitem__(slice(-4, None), np.float32(np.nan).tobytes()))
    weights(zoo, LAST, None).unlink()
    edit_lines(zoo / LAST / "metrics.jsonl", lambda lines: lines.pop())
    record = json.loads((zoo / LAST / "member.json").read_text())
    record["weights"][2]["sha256"] = file_sha256(weights(zoo, LAST, 2))
    edit_record(zoo, LAST, status="diverged", weights=record["weights"][:3])
    assert verify_zoo(Zoo(zoo), evaluate=99).problems == ()
    change(zoo, LAST, 1, lambda content: content.__setitem__(slice(-4, None), np.float32(np.nan).tobytes()))
    record_anew(zoo, LAST, 1, also="metrics")
    (problem,) = verify_zoo(Zoo(zoo)).problems
    assert problem.what == "model.epoch-01.safetensors: vit.layernorm.weight holds NaN or infinity"


class TestEvaluation:
    """Members evaluated again on their test images."""

    def test_figures_are_those_recorded(self, tiny_zoo: Path) -> None:
        found = verify_zoo(Zoo(tiny_zoo), evaluate=3)
        assert found.problems == ()
        assert [str(one.member) for one in found.evaluations] == ["pt-0", "pt-0/ft-2", "pt-1/ft-1"]
        for one in found.evaluations:
            final = Zoo(tiny_zoo)[one.member].metrics[-1]
            assert (one.recorded, one.epoch, one.exact) == (final.test_accuracy, 2, True)
        every = verify_zoo(Zoo(tiny_zoo), evaluate=99)
        assert (every.problems, len(every.evaluations)) == ((), 11)
        (embedding,) = [one for one in every.evaluations if one.member == MemberId(2)]
        assert embedding.figure == "k-NN accuracy of the features"
        assert embedding.recorded == embedding.measured == Zoo(tiny_zoo)["pt-2"].metrics[-1].test_knn_accuracy

    @pytest.mark.parametrize(("images", "problems"), [(0, 0), (1, 0), (2, 1), (-1, 0), (-2, 1), (None, 1)])
    def test_a_figure_may_be_off_by_one_image(self, zoo: Path, images: int | None, problems: int) -> None:
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
                r'accuracy on 217 test images of "digits-0-5" is 0\.\d{4} now, recorded', found.problems[0].what
            )

    def test_other_images(self, zoo: Path) -> None:
        edit_record(zoo, dataset_fingerprint="0" * 64)
        found = verify_zoo(Zoo(zoo), members=[MemberId(0, 0)], evaluate=1)
        assert found.evaluations == ()
        assert "with fingerprint 000000000000" in found.problems[0].what
        assert found.problems[0].fix == "Install the revision that it was trained on."


class TestDigest:
    """With a digest every file is held against the manifest of that digest."""

    def test_what_agrees_with_itself_is_not_the_zoo(self, zoo: Path) -> None:
        digest = publish(zoo)
        flip(zoo)
        record_anew(zoo, also="metrics")
        assert publish(zoo) != digest
        assert verify_zoo(Zoo(zoo)).problems == ()
        with pytest.raises(AuthenticityError, match="This is another zoo"):
            Zoo(zoo, digest=digest)

    def test_files_altered_afterwards(self, zoo: Path) -> None:
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
        assert ["it was altered" in problem.what for problem in found.problems] == [True, True, False]


class TestHub:
    """A zoo in a Hub repo, downloaded while it is verified."""

    def test_sound(self, hub: Hub, zoo: Path) -> None:
        digest = publish(zoo)
        plant(hub, zoo)
        found = verify_zoo(Zoo(REPO, digest=digest), evaluate=1)
        assert (found.problems, found.digest, found.authenticated) == ((), digest, True)
        assert (found.members, len(found.evaluations)) == (6, 1)

    def test_faults(self, hub: Hub, zoo: Path) -> None:
        publish(zoo)
        files = zoo_files(zoo)
        manifest = manifest_of(zoo, files)
        del files[f"{CHILD}/config.json"]
        del files[f"{CHILD}/model.epoch-00.safetensors"]
        files[f"{MLP}/model.safetensors"] = files[f"{MLP}/model.epoch-01.safetensors"]
        hub.create_repo(REPO).commit({**files, str(layout.MANIFEST): manifest.to_bytes()})
        found = [(str(problem.member), problem.what) for problem in verify_zoo(Zoo(REPO)).problems]
        assert [member for member, _ in found] == [CHILD, CHILD, MLP, MLP, MLP]
        assert "has no pt-0/ft-0/config.json" in found[0][1]
        assert "has no pt-0/ft-0/model.epoch-00.safetensors" in found[1][1]
        assert re.match("model.safetensors: has sha256 .*, but member.json says", found[2][1])
        assert re.match("model.safetensors: has sha256 .*, but manifest.json says", found[3][1])
        assert found[4][1].startswith("epoch 2 has the same weights as pt-0/ft-1 at epoch 1")
