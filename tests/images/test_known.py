"""Names of data sets and of their folders."""

from pathlib import Path

import pytest

from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, check_data, parse_data
from vitzoo.images.known import complete, find_folder, names_of

CIFAR = DatasetSpec(name="uoft-cs/cifar100", image_column="img", label_column="fine_label")
IMAGENET = DatasetSpec(
    name="ILSVRC/imagenet-1k", image_column="image", label_column="label", test_split="validation", streamed=True
)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (DatasetSpec(name="uoft-cs/cifar100"), CIFAR),
        (DatasetSpec(name="cifar100"), CIFAR),
        (DatasetSpec(name="imagenet"), IMAGENET),
        (DatasetSpec(name="ILSVRC/imagenet-1k"), IMAGENET),
        (
            DatasetSpec(name="cifar100", label_column="coarse_label", held_out=5),
            DatasetSpec(name="uoft-cs/cifar100", image_column="img", label_column="coarse_label", held_out=5),
        ),
        (
            DatasetSpec(name="imagenet", val_split="validation"),
            DatasetSpec(
                name="ILSVRC/imagenet-1k",
                image_column="image",
                label_column="label",
                val_split="validation",
                test_split="validation",
                streamed=True,
            ),
        ),
        (DatasetSpec(name="me/flowers"), DatasetSpec(name="me/flowers")),
        (DatasetSpec(name="digits-0-5"), DatasetSpec(name="digits-0-5")),
    ],
)
def test_complete(said: DatasetSpec, expected: DatasetSpec) -> None:
    assert complete(said) == expected
    assert complete(expected) == expected


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("uoft-cs/cifar100", ("uoft-cs/cifar100", "cifar100")),
        ("cifar100", ("uoft-cs/cifar100", "cifar100")),
        ("ILSVRC/imagenet-1k", ("ILSVRC/imagenet-1k", "imagenet-1k", "imagenet")),
        ("me/flowers", ("me/flowers", "flowers")),
        ("flowers", ("flowers",)),
    ],
)
def test_names(name: str, names: tuple[str, ...]) -> None:
    assert names_of(name) == names
    for given in names:
        assert find_folder(name, {given: Path("/data/x"), "other": Path("/y")}) == Path("/data/x")
    assert find_folder(name, {"other": Path("/y")}) is None


def test_folders_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home-of-me")
    assert find_folder("flowers", {"flowers": Path("x/y")}) == tmp_path / "x/y"
    assert find_folder("flowers", {"flowers": Path("~/y")}) == Path("/home-of-me/y")


def test_two_folders_for_one() -> None:
    with pytest.raises(
        DatasetError, match=r'Two folders were named for "cifar100": uoft-cs/cifar100=/a, cifar100=/b\.'
    ):
        find_folder("cifar100", {"cifar100": Path("/b"), "uoft-cs/cifar100": Path("/a")})
    assert find_folder("cifar100", {"cifar100": Path("/a"), "uoft-cs/cifar100": Path("/a")}) == Path("/a")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["cifar100=./x"], {"cifar100": Path("x")}),
        (
            ["ILSVRC/imagenet-1k=/data/a=b", "cifar100=y"],
            {"ILSVRC/imagenet-1k": Path("/data/a=b"), "cifar100": Path("y")},
        ),
    ],
)
def test_parse_data(options: list[str], expected: dict[str, Path]) -> None:
    assert parse_data(options) == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["cifar100"], '--data says "cifar100"; expected NAME=FOLDER, such as cifar100=./cifar-100-python.'),
        (["=x"], '--data says "=x"; expected NAME=FOLDER'),
        (["cifar100="], '--data says "cifar100="; expected NAME=FOLDER'),
        ([""], '--data says ""; expected NAME=FOLDER'),
        (["a=x", "a=y"], '--data names "a" twice: x and y. Name one.'),
    ],
)
def test_data_options_that_say_nothing(options: list[str], says: str) -> None:
    with pytest.raises(DatasetError) as raised:
        parse_data(options)
    assert says in str(raised.value)


def test_check_data() -> None:
    used = ["uoft-cs/cifar100", "digits-0-5", "uoft-cs/cifar100"]
    check_data({}, used)
    check_data({"cifar100": Path("x"), "digits-0-5": Path("y")}, used)
    with pytest.raises(DatasetError) as raised:
        check_data({"cifra100": Path("x")}, used)
    assert str(raised.value) == (
        'data names a folder for "cifra100", which is no data set that is used here. Nearest: cifar100.'
    )
