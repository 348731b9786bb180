"""A member finds the images of its training: by its record, in the folder that ``data`` names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.hub import Hub
from tests.images.pictures import picture
from tests.published import REPO, plant
from vitzoo import Zoo
from vitzoo.cli import app
from vitzoo.errors import DatasetError, RecordError
from vitzoo.images import DatasetSpec, Preprocessing, load_images
from vitzoo.images.load import _load
from vitzoo.images.processor import processor_arguments
from vitzoo.models.evaluation import evaluate

CHILD = "pt-0/ft-0"
CLASSES = ("6", "7", "8", "9")
SPEC = DatasetSpec(name="me/numbers", held_out=4)
WIDE = Preprocessing(resize=12, crop=8, resample="bicubic")


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Pictures of 10 x 14 pixels in class folders."""
    for split, seeds in (("train", range(80)), ("test", range(80, 100))):
        for seed in seeds:
            path = tmp_path / "numbers" / split / CLASSES[seed % 4] / f"{seed:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(seed, height=10, width=14).save(path)
    return tmp_path / "numbers"


@pytest.fixture
def zoo(tiny_copy: Path, numbers: Path) -> Path:
    """The tiny zoo; its first child's record says that it was trained on the pictures, cropped, in bf16."""
    dataset = load_images(SPEC, data={"numbers": numbers})
    edit(
        tiny_copy / CHILD / "member.json",
        dataset="me/numbers",
        dataset_spec={field: getattr(SPEC, field) for field in SPEC.__struct_fields__},
        dataset_revision=dataset.revision,
        dataset_fingerprint=dataset.fingerprint,
        n_train=76,
        n_val=4,
        n_test=20,
        precision="bf16",
    )
    processor = processor_arguments(WIDE, image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    edit(tiny_copy / CHILD / "preprocessor_config.json", **processor)
    return tiny_copy


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_member_is_evaluated_as_it_was_trained(zoo: Path, numbers: Path) -> None:
    member = Zoo(zoo)[CHILD]
    dataset = member.load_images(data={"numbers": numbers})
    assert (dataset.revision, len(dataset.train), len(dataset.val), len(dataset.test)) == ("imagefolder", 76, 4, 20)
    for part, split in (("test", dataset.test), ("val", dataset.val), ("train", dataset.train.evenly(64))):
        found = member.evaluate(part=part, data={"me/numbers": numbers})
        expected = evaluate(
            member.load(), split, mean=(0.5,) * 3, std=(0.25,) * 3, preprocessing=WIDE, precision="bf16"
        )
        assert torch.equal(found.logits, expected.logits)
    processor = member.load_image_processor().to_dict()
    assert (processor["size"], processor["crop_size"]["height"], processor["resample"]) == ({"shortest_edge": 12}, 8, 3)


def test_data_set_is_loaded_by_its_name_alone(tiny_copy: Path) -> None:
    edit(tiny_copy / CHILD / "member.json", dataset_spec={"name": "digits-6-9"})
    member = Zoo(tiny_copy)[CHILD]
    assert member.load_images() is load_images("digits-6-9")
    assert member.evaluate(epoch=1).accuracy == member.metrics[1].test_accuracy


def test_member_of_a_hub_zoo_loads_its_images(hub: Hub, zoo: Path, numbers: Path) -> None:
    from vitzoo.tables.catalogue import write_tables

    write_tables(Zoo(zoo).source)
    plant(hub, zoo)
    member = Zoo(REPO)[CHILD]
    assert len(member.load_images(data={"numbers": numbers}).val) == 4
    assert len(member.evaluate(part="val", data={"numbers": numbers}).labels) == 4


def test_other_images_are_refused(zoo: Path, numbers: Path) -> None:
    (numbers / "train/6/00.png").unlink()
    _load.cache_clear()  # as in a new process
    with pytest.raises(DatasetError, match=r"was trained on .*me/numbers.* with fingerprint .*--data"):
        Zoo(zoo)[CHILD].evaluate(data={"numbers": numbers})


def test_missing_images_are_refused(zoo: Path) -> None:
    with pytest.raises(DatasetError, match=r'asks for the data set "me/numbers", .*--data numbers=\./folder'):
        Zoo(zoo)[CHILD].evaluate()
    edit(zoo / CHILD / "member.json", dataset="uoft-cs/cifar100", dataset_spec={"name": "uoft-cs/cifar100"})
    with pytest.raises(DatasetError, match='"uoft-cs/cifar100" is not in the cache'):
        Zoo(zoo)[CHILD].evaluate()


@pytest.mark.parametrize("name", ["evil/animals", "evil/animals@main", "../evil/x"])
def test_record_alone_downloads_nothing(hub: Hub, zoo: Path, name: str) -> None:
    hub.create_repo("evil/animals", "dataset").commit({"data/train.parquet": b"x"})
    edit(zoo / CHILD / "member.json", dataset=name, dataset_spec={"name": name})
    loads: list[Callable[[], object]] = [
        lambda: Zoo(zoo)[CHILD].load_images(),
        lambda: Zoo(zoo)[CHILD].evaluate(),
        lambda: run("show", f"{zoo}/{CHILD}", "--evaluate"),
    ]
    with hub.recorded() as requests:
        for load in loads:
            with pytest.raises(DatasetError, match=r"asks for the data set .evil/animals.|No image data set is called"):
                load()
        run("verify", str(zoo), "--evaluate", "11")
    assert len(requests) == 0


def test_record_of_two_data_sets_is_refused(zoo: Path) -> None:
    edit(zoo / CHILD / "member.json", dataset_spec={"name": "evil/animals"})
    with pytest.raises(RecordError, match=r'dataset is "me/numbers", dataset_spec names "evil/animals"'):
        Zoo(zoo)[CHILD].load_images()


def test_evaluation_without_validation_images_is_refused(zoo: Path, numbers: Path) -> None:
    spec = DatasetSpec(name="me/numbers")
    fingerprint = load_images(spec, data={"numbers": numbers}).fingerprint
    edit(zoo / CHILD / "member.json", dataset_spec={"name": "me/numbers"}, dataset_fingerprint=fingerprint)
    with pytest.raises(DatasetError, match='"me/numbers" has nothing in val'):
        Zoo(zoo)[CHILD].evaluate(part="val", data={"numbers": numbers})


def test_evaluation_in_an_unknown_precision_is_refused(zoo: Path, numbers: Path) -> None:
    edit(zoo / CHILD / "member.json", precision="fp8")
    with pytest.raises(RecordError, match=r"pt-0/ft-0.*fp8"):
        Zoo(zoo)[CHILD].evaluate(data={"numbers": numbers})


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_commands_evaluate_a_member(zoo: Path, numbers: Path) -> None:
    measured = Zoo(zoo)[CHILD].evaluate(data={"numbers": numbers}).accuracy
    line = f"20 test samples of me/numbers, epoch 2: accuracy measured {measured:.2%}, recorded"
    assert line in run("show", f"{zoo}/{CHILD}", "--evaluate", "--data", f"numbers={numbers}")
    members = ["--where", "head_type=linear,replicate=0", "--evaluate", "9"]
    assert line in run("verify", str(zoo), "--data", f"me/numbers={numbers}", *members)


@pytest.mark.parametrize(("option", "text"), [("numbers", "NAME=FOLDER"), ("number=x", "Nearest: numbers")])
@pytest.mark.parametrize("command", ["show", "verify"])
def test_commands_refuse_malformed_data(zoo: Path, command: str, option: str, text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        run(command, f"{zoo}/{CHILD}" if command == "show" else str(zoo), "--data", option)
