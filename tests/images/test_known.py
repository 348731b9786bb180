"""Names of data sets and of their folders."""

from pathlib import Path

import pytest
from huggingface_hub.utils import validate_repo_id

from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, check_data, parse_data
from vitzoo.images.known import KNOWN, check_fetched, complete, find_folder, is_repo_id, names_of

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
    assert find_folder("flowers", {"flowers": Path("~nobody-of-this-name/y")}) == tmp_path / "~nobody-of-this-name/y"


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
        (["cifar100"], '--data says "cifar100"; expected NAME=FOLDER, such as cifar100=./cifar100.'),
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


def test_check_data(tmp_path: Path) -> None:
    used = ["uoft-cs/cifar100", "digits-0-5", "uoft-cs/cifar100"]
    check_data({}, used)
    check_data({"cifar100": tmp_path, "digits-0-5": tmp_path}, used)
    with pytest.raises(DatasetError) as raised:
        check_data({"cifra100": Path("x")}, used)
    assert str(raised.value) == (
        'data names a folder for "cifra100", which is no data set that is used here. Nearest: cifar100.'
    )


def test_check_data_looks_for_the_folders(tmp_path: Path) -> None:
    """Before anything is loaded, or trained."""
    used = ["ILSVRC/imagenet-1k", "me/flowers"]
    (tmp_path / "gen.py").write_text("x")
    with pytest.raises(DatasetError) as raised:
        check_data({"flowers": tmp_path / "gen.py"}, used)
    assert str(raised.value).startswith(
        f'{tmp_path}/gen.py, which was named for "me/flowers", is a file; expected a folder'
    )
    with pytest.raises(DatasetError) as raised:
        check_data({"flowers": tmp_path, "imagenet": tmp_path / "none"}, used)
    assert str(raised.value).startswith(
        f'The folder {tmp_path}/none that was named for "ILSVRC/imagenet-1k" is not there.'
    )
    assert "--data imagenet=./folder" in str(raised.value)
    with pytest.raises(DatasetError, match='Two folders were named for "me/flowers"'):
        check_data({"flowers": tmp_path, "me/flowers": tmp_path / "else"}, used)


@pytest.mark.parametrize(
    "name", ["me/flowers", "uoft-cs/cifar100", "ILSVRC/imagenet-1k", "a/b", "_a/b_", "me/flowers.v2", "M3/" + "x" * 96]
)
def test_names_of_repos(name: str) -> None:
    validate_repo_id(name)
    assert is_repo_id(name)


@pytest.mark.parametrize(
    "name",
    [
        *("flowers", "digits-0-5", "", "/", "me/", "/flowers", "me/flowers/x", "me//flowers"),
        *("me/flowers@main", "me/*", "me/flow?rs", "me/[ab]", "s3:/x", "me/..", "../me", "./me", "me/a..b", "me/a--b"),
        *("me/flowers\n", "me/flow ers", "me/flow\x1bers", "m\u00eb/flowers", "me/-flowers", "me/flowers.", "me/x.git"),
        *("me/" + "x" * 97, "x" * 97 + "/me", "me\\flowers", "me/%2e%2e", "hf:me/x"),
    ],
)
def test_names_of_no_repo(name: str) -> None:
    assert not is_repo_id(name)


def test_only_known_data_sets_are_fetched_for_a_record(tmp_path: Path) -> None:
    for known in KNOWN:
        check_fetched(known.spec.name, {}, asked_by="pt-0")
        check_fetched(known.alias, {}, asked_by="pt-0")
    check_fetched("digits-0-5", {}, asked_by="pt-0")
    check_fetched("me/flowers", {"flowers": str(tmp_path)}, asked_by="pt-0")
    with pytest.raises(DatasetError) as raised:
        check_fetched("me/flowers", {"cifar100": tmp_path}, asked_by="pt-0")
    assert str(raised.value) == (
        'pt-0 asks for the data set "me/flowers", which vitzoo does not know; what a record alone names is not '
        "downloaded. If you trust it, get it yourself: "
        "hf download me/flowers --repo-type dataset --local-dir ./folder, "
        'then --data flowers=./folder in a shell, or data={"flowers": "./folder"} in Python.'
    )
