"""Paths of a zoo's files, frozen: published zoos are read by them for good."""

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
    (layout.member_folder(PARENT), "pt-0"),
    (layout.member_folder(CHILD), "pt-12/ft-3"),
    (layout.config_file(PARENT), "pt-0/config.json"),
    (layout.config_file(CHILD), "pt-12/ft-3/config.json"),
    (layout.image_processor_file(CHILD), "pt-12/ft-3/preprocessor_config.json"),
    (layout.tokenizer_file(CHILD), "pt-12/ft-3/tokenizer.json"),
    (layout.tokenizer_config_file(CHILD), "pt-12/ft-3/tokenizer_config.json"),
    (layout.member_file(CHILD), "pt-12/ft-3/member.json"),
    (layout.metrics_file(CHILD), "pt-12/ft-3/metrics.jsonl"),
    (layout.timing_file(CHILD), "pt-12/ft-3/timing.jsonl"),
    (layout.picture_file("factor-head_type"), "pictures/factor-head_type.png"),
    (layout.weights_file(PARENT), "pt-0/model.safetensors"),
    (layout.weights_file(CHILD, 7), "pt-12/ft-3/model.epoch-07.safetensors"),
    (layout.weights_file(CHILD, 100), "pt-12/ft-3/model.epoch-100.safetensors"),
]


def test_paths_are_relative_with_forward_slashes() -> None:
    for path, expected in PATHS:
        assert type(path) is PurePosixPath  # on every system, and on the Hub
        assert str(path) == expected
        is_file = "." in expected.lstrip(".")
        assert layout.is_zoo_file(expected) == (is_file and expected != "manifest.json")  # which cannot name itself


def test_processor_files_are_those_of_the_modality() -> None:
    assert layout.processor_files(PARENT, "images") == (layout.image_processor_file(PARENT),)
    assert layout.processor_files(PARENT, "text") == (
        layout.tokenizer_file(PARENT),
        layout.tokenizer_config_file(PARENT),
    )


@pytest.mark.parametrize(
    ("epoch", "name", "variant"),
    [
        (None, "model.safetensors", None),
        (0, "model.epoch-00.safetensors", "epoch-00"),
        (90, "model.epoch-90.safetensors", "epoch-90"),
        (1234, "model.epoch-1234.safetensors", "epoch-1234"),
    ],
)
def test_weights_names_are_variants_of_transformers(epoch: int | None, name: str, variant: str | None) -> None:
    assert layout.weights_name(epoch) == name
    assert layout.is_weights_name(name)
    assert layout.parse_weights_name(name) == epoch
    if epoch is not None:
        assert layout.variant_name(epoch) == variant


@pytest.mark.parametrize(
    ("path", "member"),
    [("pt-0/config.json", PARENT), ("pt-12/ft-3/model.epoch-07.safetensors", CHILD), ("zoo.json", None), ("a/b", None)],
)
def test_member_file_names_its_member(path: str, member: MemberId | None) -> None:
    parsed = layout.parse_member_file(PurePosixPath(path))
    assert parsed == (None if member is None else (member, path.rpartition("/")[2]))


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "/", "../zoo.json", "/etc/passwd", "./zoo.json", "pt-0//config.json", "pt-0/../zoo.json"),
        *("pt-00/config.json", "pt-0/x/config.json", "pt-0/config.json/", "pt-0/evil.py", "pt-0/pytorch_model.bin"),
        *("pt-0/model.bin", "pt-0/model.epoch-7.safetensors", "pt-0/model.epoch-007.safetensors", "pt-0/model"),
        *("pt-0/model.fp16.safetensors", "metadata/../x", "metadata/Members.parquet", "metadata/x/members.parquet"),
        *("pt-0/ft-0/ft-1/config.json", "ft-0/config.json", "pt-0/config.json\n", "zoo.json\x00", ".training/x"),
        *("pt-0\\config.json", "pictures/Tree.png", "pictures/tree.svg", "pictures/x/tree.png", "pictures/.png"),
    ],
)
def test_other_paths_are_not_files_of_a_zoo(path: str) -> None:
    assert not layout.is_zoo_file(path)
