"""Names of data sets and of their folders."""

import os
from pathlib import Path

import pytest
from huggingface_hub.utils import validate_repo_id

from vitzoo.data.known import (
    KNOWN,
    check_data,
    check_fetched,
    complete,
    find_folder,
    is_repo_id,
    names_of,
    parse_data,
)
from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec

CIFAR = DatasetSpec(name="uoft-cs/cifar100", image_column="img", label_column="fine_label")
IMAGENET = DatasetSpec(
    name="ILSVRC/imagenet-1k", image_column="image", label_column="label", test_split="validation", streamed=True
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (DatasetSpec(name="cifar100"), CIFAR),
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
def test_spec_of_a_known_data_set_is_completed(spec: DatasetSpec, expected: DatasetSpec) -> None:
    assert complete(spec) == expected
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
def test_data_set_is_found_by_each_of_its_names(name: str, names: tuple[str, ...]) -> None:
    assert names_of(name) == names
    for given in names:
        assert find_folder(name, {given: Path("/data/x"), "other": Path("/y")}) == Path("/data/x")
    assert find_folder(name, {"other": Path("/y")}) is None


def test_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home-of-me")
    assert find_folder("flowers", {"flowers": Path("x/y")}) == tmp_path / "x/y"
    assert find_folder("flowers", {"flowers": Path("~/y")}) == Path("/home-of-me/y")
    assert find_folder("flowers", {"flowers": Path("~nobody-of-this-name/y")}) == tmp_path / "~nobody-of-this-name/y"


def test_two_folders_for_a_data_set_are_refused() -> None:
    with pytest.raises(DatasetError, match=r'"cifar100": uoft-cs/cifar100=/a, cifar100=/b\.'):
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
def test_data_options_are_parsed(options: list[str], expected: dict[str, Path]) -> None:
    assert parse_data(options) == expected


@pytest.mark.parametrize("option", ["cifar100", "=x", "cifar100=", ""])
def test_malformed_data_option_is_refused(option: str) -> None:
    with pytest.raises(DatasetError) as error:
        parse_data([option])
    assert f'"{option}"' in error.value.problem
    assert str(error.value.expected).startswith("NAME=FOLDER")


def test_name_in_two_data_options_is_refused() -> None:
    with pytest.raises(DatasetError, match='"a": x and y'):
        parse_data(["a=x", "a=y"])


def test_the_variable_names_folders_that_no_option_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = ("imagenet=/data/imagenet", f"uoft-cs/cifar100={tmp_path}", "unused=/nowhere")
    monkeypatch.setenv("VITZOO_DATA", os.pathsep.join(pairs))
    assert find_folder("cifar100", {}) == tmp_path
    assert find_folder("cifar100", {"cifar100": Path("/b")}) == Path("/b")
    assert find_folder("me/flowers", {}) is None
    check_data({}, ["uoft-cs/cifar100", "me/flowers"])
    with pytest.raises(DatasetError, match="/data/imagenet"):
        check_data({}, ["ILSVRC/imagenet-1k"])
    monkeypatch.setenv("VITZOO_DATA", "/data/cifar100")
    with pytest.raises(DatasetError, match='VITZOO_DATA has "/data/cifar100"'):
        find_folder("cifar100", {})


def test_data_of_an_unused_name_is_refused(tmp_path: Path) -> None:
    used = ["uoft-cs/cifar100", "digits-0-5", "uoft-cs/cifar100"]
    check_data({}, used)
    check_data({"cifar100": tmp_path, "digits-0-5": tmp_path}, used)
    with pytest.raises(DatasetError, match="cifra100") as error:
        check_data({"cifra100": Path("x")}, used)
    assert (error.value.dataset, error.value.fix) == ("cifra100", "Nearest: cifar100.")


def test_data_of_a_missing_folder_is_refused(tmp_path: Path) -> None:
    used = ["ILSVRC/imagenet-1k", "me/flowers"]
    (tmp_path / "gen.py").write_text("x")
    with pytest.raises(DatasetError, match=f"^{tmp_path}/gen.py, .* is a file"):
        check_data({"flowers": tmp_path / "gen.py"}, used)
    with pytest.raises(DatasetError, match=f"{tmp_path}/none.* does not exist.*--data imagenet=./folder"):
        check_data({"flowers": tmp_path, "imagenet": tmp_path / "none"}, used)
    with pytest.raises(DatasetError, match='two folders for "me/flowers"'):
        check_data({"flowers": tmp_path, "me/flowers": tmp_path / "else"}, used)


@pytest.mark.parametrize(
    "name", ["me/flowers", "uoft-cs/cifar100", "ILSVRC/imagenet-1k", "a/b", "_a/b_", "me/flowers.v2", "M3/" + "x" * 96]
)
def test_repo_id_is_recognised(name: str) -> None:
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
def test_other_text_is_not_a_repo_id(name: str) -> None:
    assert not is_repo_id(name)


def test_only_known_data_sets_are_fetched_for_a_record(tmp_path: Path) -> None:
    for name in (*(name for known in KNOWN for name in (known.spec.name, known.alias)), "digits-0-5"):
        check_fetched(name, {}, asked_by="pt-0")
    check_fetched("me/flowers", {"flowers": str(tmp_path)}, asked_by="pt-0")
    with pytest.raises(DatasetError, match='"me/flowers"') as error:
        check_fetched("me/flowers", {"cifar100": tmp_path}, asked_by="pt-0")
    assert "hf download me/flowers --repo-type dataset --local-dir ./folder" in str(error.value.fix)
    assert '--data flowers=./folder in a shell, data={"flowers": "./folder"} in Python' in str(error.value.fix)
