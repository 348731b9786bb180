"""The authors' data set becomes a zoo: whole, verified, loaded, read as tables, published; the same each time."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file

from tests.hub.server import Hub
from tests.interop.authors_vit import AuthorsViT
from tests.interop.imported import contents, import_tiny, on_disk, place, problems, tiny_job
from tests.interop.release import Release
from tests.interop.release_records import PRIVATE
from training.publish.plan import plan_publication
from training.publish.push import publish
from vitzoo import VitZooModel, Zoo
from vitzoo.ids import MemberId
from vitzoo.interop.authors.run import plan_release
from vitzoo.interop.engine import ImportReport
from vitzoo.records import layout, load_zoo_record
from vitzoo.sources.folder import FolderSource

SL3 = "sl_vit_s_16_224_seed_6312_bs_256_lr_0.001_wd_0.0001_me_3"
SL4 = "sl_vit_s_16_224_seed_42_bs_256_lr_0.001_wd_0.0001_me_4"
CL2 = "cl_vit_s_16_seed_42_bs_96_lr_0.001_wd_0.0001_me_2"
IDS = {
    "pt-0": f"pretraining/{SL4}",
    "pt-0/ft-0": f"finetuning/{SL4}/sl_ft_SD_42_LR_0.001_WD_0_OM_adamw_HD_NA_FZ_False_FCMLP_False",
    "pt-0/ft-1": f"finetuning/{SL4}/sl_ft_SD_42_LR_0.003_WD_0_OM_sgd_HD_NA_FZ_False_FCMLP_False",
    "pt-0/ft-2": f"finetuning/{SL4}/sl_ft_SD_42_LR_0.001_WD_0_OM_adamw_HD_16_FZ_False_FCMLP_True",
    "pt-0/ft-3": f"finetuning/{SL4}/sl_ft_SD_42_LR_0.003_WD_0_OM_sgd_HD_16_FZ_False_FCMLP_True",
    "pt-1": f"pretraining/{SL3}",
    "pt-2": f"pretraining/{CL2}",
    "pt-2/ft-0": f"finetuning/{CL2}/cl_ft_SD_7_LR_0.003_WD_0_OM_sgd_HD_16_FZ_False_FCMLP_True",
    "pt-2/ft-1": f"finetuning/{CL2}/cl_ft_SD_42_LR_0.003_WD_0_OM_adamw_HD_NA_FZ_False_FCMLP_False",
    "pt-2/ft-2": f"finetuning/{CL2}/cl_ft_SD_42_LR_0.001_WD_0_OM_sgd_HD_NA_FZ_False_FCMLP_False",
    "pt-2/ft-3": f"finetuning/{CL2}/cl_ft_SD_42_LR_0.001_WD_0_OM_adamw_HD_16_FZ_False_FCMLP_True",
}
CHECKPOINTS = 4 + 4 + 3 + 7 * 3 + 4  # three parents, seven children of two epochs, one of three
REPO, METADATA = "org/vit-zoo", "org/vit-zoo-metadata"


def test_whole_release_is_taken_and_verified(
    authors_release: Release, authors_import: tuple[Path, ImportReport]
) -> None:
    zoo, report = authors_import
    assert report.taken == IDS
    assert load_zoo_record(zoo / "zoo.json").recipe["members"] == IDS
    assert (report.skipped, report.complete, report.checked) == ({}, True, {})
    assert report.checkpoints == CHECKPOINTS
    files = [path for model in authors_release.models for path in model.checkpoints.values()]
    assert report.read == sum(path.stat().st_size for path in files)
    assert problems(zoo) == []
    assert [str(member.id) for member in Zoo(zoo)] == list(IDS)
    assert contents(zoo / ".training").keys() == {"import/lock", "import/report.json"}  # nothing is left behind


def test_every_checkpoint_is_the_original(authors_release: Release, authors_zoo: Path) -> None:
    """Weights bit for bit, logits to 1e-5; as transformers loads it, by id and epoch."""
    models = {place(model): model for model in authors_release.models}
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    compared = 0
    for member, folder in IDS.items():
        states = models[folder].states
        for epoch, state in [*states.items(), (None, states[max(states)])]:
            path = authors_zoo / layout.weights_file(MemberId.parse(member), epoch)
            found, expected = load_file(path), on_disk(state)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
            loaded = VitZooModel.from_pretrained(f"{authors_zoo}/{member}" + ("" if epoch is None else f"@{epoch}"))
            with torch.inference_mode():
                before, after = AuthorsViT.of(state)(images), loaded(pixel_values=images).logits
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
            compared += epoch is not None
    assert compared == CHECKPOINTS


def test_check_compares_logits(authors_release: Release, authors_zoo: Path, tmp_path: Path) -> None:
    """A second import compares and reads nothing more."""
    zoo = shutil.copytree(authors_zoo, tmp_path / "zoo")
    report = import_tiny(authors_release, zoo, check=4)
    assert list(report.checked) == ["pt-0", "pt-0/ft-1", "pt-1", "pt-2/ft-1"]
    assert max(report.checked.values()) < 1e-5
    assert report.read == 0
    assert list(import_tiny(authors_release, zoo, check=99).checked) == list(IDS)


def test_private_strings_are_not_taken(authors_release: Release, authors_zoo: Path) -> None:
    files = contents(authors_zoo)
    assert ".training/import/report.json" in files
    secrets = [*PRIVATE, "71003", "hostname", "node_ip", "trial_id", "logdir", str(authors_release.root)]
    for name, content in files.items():
        assert not [secret for secret in secrets if secret.encode() in content], name
    kept = [path for path in authors_release.root.rglob("*") if path.name in ("optimizer", ".tune_metadata")]
    taken = set(files.values())
    assert kept
    assert not [path for path in kept if path.read_bytes() in taken]


def test_tables_and_hub(hub: Hub, authors_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published by the zoo's own command and loaded by a stranger."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    token = hub.add_token("someone", role="write", orgs=("org",))
    done = publish(plan_publication(FolderSource(authors_zoo), to=REPO, metadata_to=METADATA), token=token.value)
    for table in ("members", "epochs", "splits"):
        expected = pq.read_table(authors_zoo / layout.table_file(table)).to_pylist()
        for source in (str(authors_zoo / "metadata"), METADATA):
            assert load_dataset(source, table)["train"].to_list() == expected
    assert [row["id"] for row in load_dataset(METADATA, "members")["train"].to_list()] == list(IDS)
    zoo = Zoo(REPO, digest=done.digest)
    assert [str(member.id) for member in zoo] == list(IDS)
    for member in ("pt-0", "pt-2/ft-0@1"):
        there, here = (VitZooModel.from_pretrained(f"{root}/{member}") for root in (REPO, authors_zoo))
        assert all(torch.equal(there.state_dict()[name], tensor) for name, tensor in here.state_dict().items())
    for name, content in hub.repo(REPO).files().items():
        assert not [secret for secret in PRIVATE if secret.encode() in content], name
        assert not name.startswith(".training")


def test_import_is_the_same_with_other_jobs_and_elsewhere(
    authors_release: Release, authors_zoo: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(authors_release.root, tmp_path / "elsewhere")
    calls: list[tuple[str, int, int]] = []
    report = import_tiny(root, tmp_path / "zoo", jobs=3, progress=lambda *call: calls.append(call))
    assert contents(tmp_path / "zoo") == contents(authors_zoo)
    assert [call for call in calls if call[0] != "importing"] == [
        ("looking at models", number, 11) for number in range(1, 12)
    ]
    sizes = [done for work, done, _ in calls if work == "importing"]
    assert (len(sizes), sizes[-1]) == (CHECKPOINTS, report.read)
    assert sizes == sorted(sizes)


def test_later_models_are_appended(authors_release: Release, tmp_path: Path) -> None:
    """A parent and children that are sorted before others keep these their ids."""
    root = shutil.copytree(authors_release.root, tmp_path / "dataset")
    away = tmp_path / "away"
    away.mkdir()
    later = [IDS["pt-0"], f"finetuning/{SL4}", IDS["pt-2/ft-0"], IDS["pt-2/ft-2"]]
    for number, folder in enumerate(later):
        shutil.move(root / folder, away / str(number))
    first = import_tiny(root, tmp_path / "zoo").taken
    assert first == {
        "pt-0": IDS["pt-1"],
        "pt-1": IDS["pt-2"],
        "pt-1/ft-0": IDS["pt-2/ft-1"],
        "pt-1/ft-1": IDS["pt-2/ft-3"],
    }
    before = {name: text for name, text in contents(tmp_path / "zoo").items() if name.startswith("pt-")}
    for number, folder in enumerate(later):
        shutil.move(away / str(number), root / folder)
    report = import_tiny(root, tmp_path / "zoo")
    appended = {
        "pt-1/ft-2": IDS["pt-2/ft-0"],
        "pt-1/ft-3": IDS["pt-2/ft-2"],
        "pt-2": IDS["pt-0"],
        **{f"pt-2/ft-{number}": IDS[f"pt-0/ft-{number}"] for number in range(4)},
    }
    assert report.taken == first | appended
    after = contents(tmp_path / "zoo")
    assert {name: after[name] for name in before} == before
    assert problems(tmp_path / "zoo") == []
    assert import_tiny(root, tmp_path / "zoo").taken == report.taken
    recorded = load_zoo_record(tmp_path / "zoo/zoo.json").recipe["members"]
    assert recorded == report.taken


def test_deleted_member_is_imported_again(authors_release: Release, authors_zoo: Path, tmp_path: Path) -> None:
    zoo = shutil.copytree(authors_zoo, tmp_path / "zoo")
    shutil.rmtree(zoo / "pt-0/ft-2")
    shutil.rmtree(zoo / "pt-2")
    report = import_tiny(authors_release, zoo)
    assert report.taken == IDS
    again, before = contents(zoo), contents(authors_zoo)
    assert [name for name in before if again[name] != before[name]] == [".training/import/report.json"]  # bytes read
    assert again.keys() == before.keys()


def test_plan_writes_nothing(authors_release: Release, tmp_path: Path) -> None:
    job = tiny_job(authors_release, tmp_path / "zoo")
    planned, report = plan_release(job), job.report
    assert {str(one.id): one.name for one in planned} == report.taken == IDS
    assert (report.checkpoints, report.read, report.skipped) == (CHECKPOINTS, 0, {})
    sizes = [path.stat().st_size for model in authors_release.models for path in model.checkpoints.values()]
    assert sum(one.bytes for one in planned) == sum(sizes)
    assert not (tmp_path / "zoo").exists()
