"""The authors' pickles: images and labels as written, and nothing that a pickle can do but numbers."""

import os
import pickle
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import (
    CIFAR_COARSE,
    CIFAR_FINE,
    cifar_arrays,
    cifar_split,
    python2_pickle,
    write_cifar,
)
from vitzoo.errors import DatasetError
from vitzoo.images import DatasetSpec, ImageSplit, load_images
from vitzoo.images.cifar import load_plain_pickle

TRAIN, TEST = range(20), range(20, 27)


def in_memory(split: object) -> ImageSplit:
    assert isinstance(split, ImageSplit)
    return split


@pytest.mark.parametrize("protocol", ["python 2", 0, 1, 2, 3, 4])
@pytest.mark.parametrize("place", [".", "cifar-100-python"])
def test_what_was_written(tmp_path: Path, protocol: int | str, place: str) -> None:
    dump = python2_pickle if isinstance(protocol, str) else lambda value: pickle.dumps(value, protocol=protocol)
    write_cifar(tmp_path / place, train=TRAIN, test=TEST, dump=dump)
    found = load_images("uoft-cs/cifar100", data={"cifar100": tmp_path})
    assert (found.name, found.revision, found.classes) == ("uoft-cs/cifar100", "torchvision", CIFAR_FINE)
    for split, seeds in ((in_memory(found.train), TRAIN), (in_memory(found.test), TEST)):
        images, labels = cifar_arrays(seeds)
        assert np.array_equal(split.images, images)
        assert split.labels.tolist() == labels
        assert split.indices.tolist() == list(range(len(labels)))
        assert split.images.flags.writeable  # torch warns of others
    assert in_memory(found.val).images.shape == (0, 3, 32, 32)


def test_the_fingerprint_is_that_of_the_hubs_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet as the Hub has it: PNGs in a column img, with both labels."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=list(CIFAR_FINE)),
            "coarse_label": datasets.ClassLabel(names=list(CIFAR_COARSE)),
        }
    )
    (tmp_path / "hub/cifar100").mkdir(parents=True)
    for split, seeds in (("train", TRAIN), ("test", TEST)):
        images, labels = cifar_arrays(seeds)
        pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
        columns = {"img": pictures, "fine_label": labels, "coarse_label": [label % 2 for label in labels]}
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(tmp_path / f"hub/cifar100/{split}-00000-of-00001.parquet")
    write_cifar(tmp_path / "authors", train=TRAIN, test=TEST)
    hub, authors = (load_images("cifar100", data={"cifar100": tmp_path / name}) for name in ("hub", "authors"))
    assert hub.revision == "parquet"
    assert hub.classes == authors.classes
    assert hub.fingerprint == authors.fingerprint


def test_coarse_labels_and_held_out_images(tmp_path: Path) -> None:
    write_cifar(tmp_path, train=TRAIN, test=TEST)
    spec = DatasetSpec(name="uoft-cs/cifar100", label_column="coarse_label", held_out=4)
    found = load_images(spec, data={"cifar100": tmp_path})
    assert found.classes == CIFAR_COARSE
    assert found.val.indices.tolist() == [0, 5, 10, 15]
    assert found.train.indices.tolist() == [place for place in range(20) if place % 5]
    assert found.train.labels.tolist() == [place % 10 % 2 for place in range(20) if place % 5]


class _Calls:
    def __init__(self, *reduced: object):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def stacked(*operations: bytes) -> bytes:
    return b"\x80\x02" + b"".join(operations) + b"."


UINT8 = _Calls(np.dtype, ("u1", False, True))


def array_of(*state: object) -> bytes:
    """A pickle of an array with any state."""
    reconstruct = np.zeros(0, np.uint8).__reduce__()[0]
    return pickle.dumps(_Calls(reconstruct, (np.ndarray, (0,), b"b"), state), protocol=2)


HOSTILE = {
    "a command": (pickle.dumps(_Calls(os.system, ("touch hacked",))), r'it names "posix\.system"'),
    "eval": (pickle.dumps(_Calls(eval, ("open('hacked', 'w')",))), r'names "builtins\.eval"'),
    "python 2's eval": (stacked(b"c__builtin__\neval\n(U\x011tR"), r'it names "__builtin__\.eval"'),
    "a subclass of dict": (pickle.dumps(OrderedDict(a=1)), r'it names "collections\.OrderedDict"'),
    "another of numpy": (pickle.dumps(_Calls(np.fromfile, ("/etc/passwd",))), r'it names "numpy'),
    "a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", r"names \"numpy\.ndarray\.__class__"),
    "a codec": (stacked(b"c_codecs\nencode\n(U\x01xU\x04zlibtR"), "another encoding than latin1|written"),
    "a state of a function": (stacked(b"c_codecs\nencode\n}U\x01xU\x01ysb"), "no file of CIFAR-100"),
    "a state of a class": (stacked(b"cnumpy\nndarray\n}U\x01xU\x01ysb"), "no file of CIFAR-100"),
    "an object array": (pickle.dumps(np.array([{}, []], dtype=object), protocol=2), 'of "O8", not uint8'),
    "a float array": (pickle.dumps(np.zeros(3), protocol=2), 'an array in it is of "f8", not uint8'),
    "too long": (array_of(1, (2**40,), UINT8, False, b"xy"), "no array of uint8, row by row"),
    "negative": (array_of(1, (-1, -2), UINT8, False, b"xy"), "no array of uint8, row by row"),
    "by columns": (array_of(1, (1, 2), UINT8, True, b"xy"), "no array of uint8, row by row"),
    "a shape of objects": (array_of(1, [2], UINT8, False, b"xy"), "no array of uint8, row by row"),
    "a state of one": (array_of(UINT8), "no file of CIFAR-100"),
    "a persistent id": (stacked(b"Px\n"), "no file of CIFAR-100"),
    "an extension": (stacked(b"\x82\x01"), "no file of CIFAR-100"),
    "truncated": (python2_pickle(cifar_split(TRAIN))[:1000], "no file of CIFAR-100"),
    "empty": (b"", "no file of CIFAR-100"),
    "text": (b"<html>", "no file of CIFAR-100"),
}


@pytest.mark.parametrize(("content", "says"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_pickle(tmp_path: Path, content: bytes, says: str) -> None:
    write_cifar(tmp_path, train=TRAIN, test=TEST)
    for name in ("meta", "train", "test"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=says) as raised:
            load_images("cifar100", data={"cifar100": tmp_path})
        assert f"{tmp_path / name} is no file of CIFAR-100" in str(raised.value)
        (tmp_path / name).write_bytes(whole)
    assert not Path("hacked").exists()


def test_an_array_is_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(array_of(1, (1, 2), UINT8, False, b"xy"))
    assert load_plain_pickle(tmp_path / "x").to_numpy().tolist() == [[120, 121]]


def test_nothing_is_changed_by_a_refused_pickle(tmp_path: Path) -> None:
    """A pickle that sets attributes of what it names would otherwise change later ones."""
    for content in (HOSTILE["a state of a function"][0], HOSTILE["a state of a class"][0]):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DatasetError):
            load_plain_pickle(tmp_path / "x")
    write_cifar(tmp_path / "c", train=TRAIN, test=TEST, dump=lambda value: pickle.dumps(value, protocol=2))
    found = load_images("cifar100", data={"cifar100": tmp_path / "c"})
    assert np.array_equal(in_memory(found.train).images, cifar_arrays(TRAIN)[0])


WRONG = {
    "too few pixels": ({b"data": np.zeros((20, 3071), np.uint8)}, "it holds no 3072 numbers for each of its 20 labels"),
    "fewer images": ({b"data": np.zeros((19, 3072), np.uint8)}, "it holds no 3072 numbers for each of its 20 labels"),
    "pixels in a list": ({b"data": [1, 2]}, "it holds no 3072 numbers"),
    "no pixels": ({b"data": None}, "it holds no data"),
    "labels of text": ({b"fine_labels": ["1"] * 20}, "its fine_labels are no whole numbers"),
    "a label too large": ({b"fine_labels": [10] * 20}, 'Split "train" of .* has label 10 at image 0; expected 0 to 9'),
    "a negative label": ({b"fine_labels": [0] * 19 + [-1]}, "has label -1 at image 19; expected 0 to 9"),
    "no labels": ({b"fine_labels": 3}, "it holds no fine_labels"),
}


@pytest.mark.parametrize(("change", "says"), WRONG.values(), ids=list(WRONG))
def test_other_contents(tmp_path: Path, change: dict[bytes, object], says: str) -> None:
    write_cifar(tmp_path, train=TRAIN, test=TEST)
    (tmp_path / "train").write_bytes(python2_pickle(cifar_split(TRAIN) | change))
    with pytest.raises(DatasetError, match=says):
        load_images("cifar100", data={"cifar100": tmp_path})


def test_no_dict_and_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, train=TRAIN, test=TEST)
    (tmp_path / "meta").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DatasetError, match="meta is no file of CIFAR-100: it holds no fine_label_names"):
        load_images("cifar100", data={"cifar100": tmp_path})
    monkeypatch.setattr("vitzoo.images.cifar._MAX_BYTES", 1)
    with pytest.raises(DatasetError, match="it has over 0 MiB"):
        load_images("cifar100", data={"cifar100": tmp_path})


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            DatasetSpec(name="uoft-cs/cifar100", streamed=True),
            "holds images in memory, not in files: set streamed=False",
        ),
        (
            DatasetSpec(name="uoft-cs/cifar100", val_split="validation"),
            'has no split "validation". There are: train, test.',
        ),
        (DatasetSpec(name="uoft-cs/cifar100", label_column="label"), "it holds no label_names"),
        (DatasetSpec(name="uoft-cs/cifar100", held_out=20), "held_out is 20 of 20 training images"),
    ],
)
def test_another_spec(tmp_path: Path, spec: DatasetSpec, says: str) -> None:
    write_cifar(tmp_path, train=TRAIN, test=TEST)
    with pytest.raises(DatasetError, match=says.replace(".", r"\.")):
        load_images(spec, data={"cifar100": tmp_path})


def test_memory_of_a_pickle_is_bounded_by_its_size(tmp_path: Path) -> None:
    """A memo that is doubled many times over stays one object: nothing is unrolled."""
    content = BytesIO()
    content.write(b"\x80\x02]q\x00")
    for depth in range(60):
        content.write(b"]q" + bytes([depth + 1]) + b"(h" + bytes([depth]) + b"h" + bytes([depth]) + b"e")
    (tmp_path / "x").write_bytes(content.getvalue() + b".")
    assert len(load_plain_pickle(tmp_path / "x")) == 2
