"""Where everything lies in a zoo, frozen: published zoos are read by these paths for good."""

from pathlib import PurePosixPath

import pytest

from vitzoo.ids import MemberId
from vitzoo.records import layout

PARENT, CHILD = MemberId(0), MemberId(12, 3)
PATHS = [
    (layout.ZOO_JSON, "zoo.json"),
    (layout.METADATA, "metadata"),
    (layout.METADATA_README, "metadata/README.md"),
    (layout.MANIFEST, "manifest.json"),
    (layout.README, "README.md"),
    (layout.TRAINING, ".training"),
    (layout.table_file("members"), "metadata/members.parquet"),
    (layout.table_file("epochs"), "metadata/epochs.parquet"),
    (layout.table_file("splits"), "metadata/splits.parquet"),
    (layout.member_folder(PARENT), "pt-0"),
    (layout.member_folder(CHILD), "pt-12/ft-3"),
    (layout.config_file(PARENT), "pt-0/config.json"),
    (layout.config_file(CHILD), "pt-12/ft-3/config.json"),
    (layout.image_processor_file(CHILD), "pt-12/ft-3/preprocessor_config.json"),
    (layout.member_file(CHILD), "pt-12/ft-3/member.json"),
    (layout.metrics_file(CHILD), "pt-12/ft-3/metrics.jsonl"),
    (layout.timing_file(CHILD), "pt-12/ft-3/timing.jsonl"),
    (layout.weights_file(PARENT), "pt-0/model.safetensors"),
    (layout.weights_file(CHILD), "pt-12/ft-3/model.safetensors"),
    (layout.weights_file(CHILD, 0), "pt-12/ft-3/model.epoch-00.safetensors"),
    (layout.weights_file(CHILD, 7), "pt-12/ft-3/model.epoch-07.safetensors"),
    (layout.weights_file(CHILD, 50), "pt-12/ft-3/model.epoch-50.safetensors"),
    (layout.weights_file(CHILD, 100), "pt-12/ft-3/model.epoch-100.safetensors"),
]


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_paths(path: PurePosixPath, expected: str) -> None:
    assert type(path) is PurePosixPath  # forward slashes on every system, and on the Hub
    assert str(path) == expected
    assert not path.is_absolute()


@pytest.mark.parametrize(
    ("epoch", "name", "variant"),
    [
        (None, "model.safetensors", None),
        (0, "model.epoch-00.safetensors", "epoch-00"),
        (9, "model.epoch-09.safetensors", "epoch-09"),
        (90, "model.epoch-90.safetensors", "epoch-90"),
        (1234, "model.epoch-1234.safetensors", "epoch-1234"),
    ],
)
def test_names_of_weights(epoch: int | None, name: str, variant: str | None) -> None:
    assert layout.weights_name(epoch) == name
    assert layout.is_weights_name(name)
    assert layout.parse_weights_name(name) == epoch
    if epoch is not None:
        assert layout.variant_name(epoch) == variant


@pytest.mark.parametrize(
    "name", ["model.bin", "model.epoch-7.safetensors", "model.epoch-007.safetensors", "model.fp16.safetensors", "model"]
)
def test_names_that_are_no_weights(name: str) -> None:
    assert not layout.is_weights_name(name)
    assert not layout.is_zoo_file(f"pt-0/{name}")


@pytest.mark.parametrize(
    ("path", "member"),
    [("pt-0/config.json", PARENT), ("pt-12/ft-3/model.epoch-07.safetensors", CHILD), ("zoo.json", None), ("a/b", None)],
)
def test_whose_file(path: str, member: MemberId | None) -> None:
    found = layout.parse_member_file(PurePosixPath(path))
    assert found == (None if member is None else (member, path.rpartition("/")[2]))


@pytest.mark.parametrize("path", [str(path) for path, text in PATHS if "." in text.lstrip(".")])
def test_files_of_a_zoo(path: str) -> None:
    assert layout.is_zoo_file(path) == (path != "manifest.json")  # which cannot name itself


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "/", "../zoo.json", "/etc/passwd", "./zoo.json", "pt-0//config.json", "pt-0/../zoo.json"),
        *("pt-00/config.json", "pt-0/x/config.json", "pt-0/config.json/", "pt-0/evil.py", "pt-0/pytorch_model.bin"),
        *(
            "metadata/../x",
            "metadata/Members.parquet",
            "metadata/x/members.parquet",
            ".training/x",
            "pt-0\\config.json",
        ),
        *("pt-0/ft-0/ft-1/config.json", "ft-0/config.json", "pt-0/config.json\n", "zoo.json\x00"),
    ],
)
def test_what_is_no_file_of_a_zoo(path: str) -> None:
    assert not layout.is_zoo_file(path)


def test_every_path_is_in_the_table() -> None:
    functions = {
        name for name, value in vars(layout).items() if callable(value) and value.__module__ == layout.__name__
    }
    constants = {name for name in vars(layout) if name.isupper() and not name.startswith("_")}
    assert functions == {
        *("member_folder", "config_file", "image_processor_file", "member_file", "metrics_file", "timing_file"),
        *("weights_file", "weights_name", "variant_name", "table_file"),
        *("parse_member_file", "is_weights_name", "parse_weights_name", "is_zoo_file"),
    }
    assert constants == {"ZOO_JSON", "METADATA", "METADATA_README", "MANIFEST", "README", "MEMBER_JSON", "TRAINING"}
