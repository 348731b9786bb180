"""Data sets of the Hub, from a server that speaks its protocol: commits, columns and refusals."""

import re
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.hub import Hub, Repo
from tests.hub.faults import Answer, Drop, gated
from tests.images.pictures import CLASSES, encoded, label_of, picture, pixels, table
from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, FileSplit, ImageSplit, load_images
from vitzoo.images.load import _load

TRAIN, TEST = range(12), range(12, 17)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _load.cache_clear()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-home/datasets")
    datasets.disable_progress_bars()


def parquet_of(rows: datasets.Dataset, tmp_path: Path) -> bytes:
    rows.to_parquet(tmp_path / "rows.parquet")
    return (tmp_path / "rows.parquet").read_bytes()


def publish(hub: Hub, tmp_path: Path, name: str = "me/animals", *, image: str = "image", label: str = "label") -> Repo:
    """A repo as `push_to_hub` writes one, by test and train."""
    repo = hub.create_repo(name, "dataset")
    files = {
        f"data/{split}-00000-of-00001.parquet": parquet_of(table(seeds, image=image, label=label), tmp_path)
        for split, seeds in (("train", TRAIN), ("test", TEST))
    }
    repo.commit(files)
    return repo


def test_hub_data_set_in_memory_and_streamed(hub: Hub, tmp_path: Path) -> None:
    repo = publish(hub, tmp_path)
    found = load_images(DatasetSpec(name="me/animals", held_out=3))
    assert (found.name, found.revision, found.classes) == ("me/animals", f"me/animals@{repo.head}", CLASSES)
    assert isinstance(found.train, ImageSplit)
    assert found.val.indices.tolist() == [0, 4, 8]
    for place, seed in enumerate(found.train.indices):
        assert np.array_equal(found.train.images[place].transpose(1, 2, 0), pixels(int(seed)))
        assert found.train.labels[place] == label_of(int(seed))
    streamed = load_images(DatasetSpec(name="me/animals", streamed=True)).test
    assert isinstance(streamed, FileSplit)
    for place, seed in enumerate(TEST):
        assert np.array_equal(np.asarray(streamed.load(place)), pixels(seed))
    assert streamed.describe(1) == 'row 1 of me/animals, split "test", column "image"'


def test_known_data_sets_need_no_columns(hub: Hub, tmp_path: Path) -> None:
    repo = publish(hub, tmp_path, "uoft-cs/cifar100", image="img", label="fine_label")
    assert load_images("cifar100").revision == f"uoft-cs/cifar100@{repo.head}"
    repo = hub.create_repo("ILSVRC/imagenet-1k", "dataset")
    for split, seeds in (("train", TRAIN), ("validation", TEST)):
        repo.commit({f"data/{split}-00000-of-00001.parquet": parquet_of(table(seeds), tmp_path)})
    found = load_images("imagenet")
    assert (found.name, found.streamed, len(found.test)) == ("ILSVRC/imagenet-1k", True, 5)


def test_later_commit_is_another_revision(hub: Hub, tmp_path: Path) -> None:
    repo = publish(hub, tmp_path)
    first = load_images("me/animals")
    assert load_images("me/animals") is first
    repo.commit({"data/train-00000-of-00001.parquet": parquet_of(table(range(50, 62)), tmp_path)})
    _load.cache_clear()  # as in a new process
    second = load_images("me/animals")
    assert second.revision == f"me/animals@{repo.head}" != first.revision
    assert isinstance(second.train, ImageSplit)
    assert np.array_equal(second.train.images[0].transpose(1, 2, 0), pixels(50))
    assert second.fingerprint != first.fingerprint


def test_cached_data_set_is_loaded_offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = publish(hub, tmp_path)
    first = load_images("me/animals")
    _load.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with hub.recorded() as requests:
        again = load_images("me/animals")
    assert len(requests) == 0
    assert (again.revision, again.fingerprint) == (f"me/animals@{repo.head}", first.fingerprint)


def test_folder_with_the_name_of_a_repo_is_ignored(hub: Hub, tmp_path: Path) -> None:
    repo = publish(hub, tmp_path)
    Path("me/animals/train/x").mkdir(parents=True)
    picture(1).save("me/animals/train/x/1.png")
    assert load_images("me/animals").revision == f"me/animals@{repo.head}"


def test_image_files_on_the_hub_are_loaded(hub: Hub) -> None:
    """Rows of such a data set name files of the cache, and have no bytes."""
    repo = hub.create_repo("me/folder", "dataset")
    repo.commit(
        {
            f"{split}/{CLASSES[label_of(seed)]}/{seed:02}.png": encoded(picture(seed))
            for split, seeds in (("train", TRAIN), ("test", TEST))
            for seed in seeds
        }
    )
    for streamed in (False, True):
        found = load_images(DatasetSpec(name="me/folder", streamed=streamed))
        assert found.classes == CLASSES
        assert sorted(found.train.labels) == sorted(map(label_of, TRAIN))
        split = found.test
        image = np.asarray(split.load(0)) if isinstance(split, FileSplit) else split.images[0].transpose(1, 2, 0)
        assert any(np.array_equal(image, pixels(seed)) for seed in TEST)


def test_row_that_names_a_file_of_the_user_is_refused(hub: Hub, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    picture(1).save(secret)
    repo = hub.create_repo("me/hostile", "dataset")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x"])})
    rows = {"image": [{"bytes": None, "path": str(secret)}], "label": [0]}
    row = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    plain = datasets.Features({"image": row, "label": features["label"]})
    written = datasets.Dataset.from_dict(rows, features=plain)
    for split in ("train", "test"):
        repo.commit({f"{split}.parquet": parquet_of(written, tmp_path)})
    spec = DatasetSpec(name="me/hostile", image_column="image")
    with pytest.raises(DatasetError, match=r"row 0 of me/hostile.* has no image, and names no file of the data set"):
        load_images(spec)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (gated(), "is gated, and you may not read it yet"),
        (gated(status=401), "is gated, and you may not read it yet"),
        (Answer(status=500), "could not be loaded from the Hub: status 500"),
        (Drop(), "is not in the cache, and the Hub did not answer"),
    ],
    ids=["403", "401", "500", "no answer"],
)
def test_refusal_of_the_hub_is_explained(
    hub: Hub, tmp_path: Path, fault: Answer | Drop, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    publish(hub, tmp_path, "ILSVRC/imagenet-1k")
    with hub.fault(fault), pytest.raises(DatasetError) as error:
        load_images("imagenet")
    assert error.value.problem == f'"ILSVRC/imagenet-1k" {problem}'
    assert error.value.dataset == "ILSVRC/imagenet-1k"
    for text in (
        "about 155 GB",
        "terms at https://huggingface.co/datasets/ILSVRC/imagenet-1k",
        '{"imagenet": "./folder"}',
    ):
        assert text in str(error.value.fix)


def test_private_data_set_needs_a_token(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = publish(hub, tmp_path)
    repo.private = True
    with pytest.raises(DatasetError, match=r"has no data set .* that you may read.*Check the name"):
        load_images("me/animals")
    monkeypatch.setenv("HF_TOKEN", hub.add_token("me").value)
    assert load_images("me/animals").revision == f"me/animals@{repo.head}"


def test_data_set_that_is_not_cached_is_refused_offline(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match='"uoft-cs/cifar100" is not in the cache, and HF_HUB_OFFLINE is set'
    ) as error:
        load_images("uoft-cs/cifar100")
    assert "about 160 MB" in str(error.value.fix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_split": "tset"}, r'"me/animals" has no split "tset".* Nearest: test\.'),
        ({"val_split": "validation"}, r'has no split "validation".*There are: .*train'),
        ({"config": "large"}, r'has no configuration "large": .*default'),
    ],
)
def test_spec_that_does_not_fit_is_refused(hub: Hub, tmp_path: Path, change: dict, message: str) -> None:
    publish(hub, tmp_path)
    with pytest.raises(DatasetError, match=message):
        load_images(DatasetSpec(name="me/animals", **change))


def test_splits_of_a_card_are_checked_before_the_download(hub: Hub, tmp_path: Path) -> None:
    repo = publish(hub, tmp_path)
    files = "  - split: train\n    path: data/train-*\n  - split: test\n    path: data/test-*\n"
    sizes = {"train": 12, "test": 5}.items()
    splits = "".join(f"  - name: {name}\n    num_bytes: 1\n    num_examples: {count}\n" for name, count in sizes)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}dataset_info:\n  splits:\n{splits}---\n"
    repo.commit({"README.md": card.encode()})
    with hub.recorded() as requests, pytest.raises(DatasetError, match='has no split "validation"'):
        load_images(DatasetSpec(name="me/animals", test_split="validation"))
    assert not [request for request in requests if re.search(r"resolve.*parquet", request.path)]


def test_damaged_files_are_refused(hub: Hub, tmp_path: Path) -> None:
    repo = hub.create_repo("me/animals", "dataset")
    repo.commit({"train.parquet": b"PAR1 nothing", "test.parquet": b"PAR1 nothing"})
    with pytest.raises(DatasetError, match='"me/animals" could not be loaded from the Hub: '):
        load_images("me/animals")
