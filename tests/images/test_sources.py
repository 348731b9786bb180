"""Decoding: every mode becomes RGB like in torchvision's loader, and errors name the file or row."""

import warnings
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms

from tests.images.pictures import encoded, picture, pixels
from vitzoo.errors import DatasetError
from vitzoo.images.sources import ImageFiles, ImageRows, decode

RGB = picture(3, height=12, width=20)


def palette_with_transparency() -> Image.Image:
    image = RGB.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    image.info["transparency"] = bytes([0, 128, *[255] * 6])
    return image


MODES = {
    "RGB png": (RGB, "PNG", {}),
    "RGB jpeg": (RGB, "JPEG", {"quality": 90}),
    "grey png": (RGB.convert("L"), "PNG", {}),
    "grey jpeg": (RGB.convert("L"), "JPEG", {}),
    "bilevel": (RGB.convert("1"), "PNG", {}),
    "palette": (RGB.convert("P"), "PNG", {}),
    "palette with transparency": (palette_with_transparency(), "PNG", {}),
    "grey and alpha": (RGB.convert("LA"), "PNG", {}),
    "RGBA": (Image.merge("RGBA", [*RGB.split(), RGB.convert("L")]), "PNG", {}),
    "CMYK jpeg": (RGB.convert("CMYK"), "JPEG", {"quality": 95}),
    "YCbCr tiff": (RGB.convert("YCbCr"), "TIFF", {}),
    "16 bit grey": (Image.fromarray(np.arange(240, dtype=np.uint16).reshape(12, 20) * 273), "PNG", {}),
    "webp": (RGB, "WEBP", {"lossless": True}),
    "bmp": (RGB, "BMP", {}),
    "ppm": (RGB, "PPM", {}),
    "gif": (RGB.convert("P"), "GIF", {}),
}


@pytest.mark.parametrize("mode", MODES)
def test_image_of_any_mode_becomes_rgb(mode: str) -> None:
    image, kind, options = MODES[mode]
    content = encoded(image, kind, **options)
    with Image.open(BytesIO(content)) as opened, warnings.catch_warnings(action="ignore"):
        expected = np.asarray(opened.convert("RGB"))  # torchvision.datasets.folder.pil_loader
    found = decode(BytesIO(content), named="it")
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), expected)


def test_exif_rotation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = decode(BytesIO(encoded(RGB, "PNG", exif=exif)), named="it")
    assert np.array_equal(np.asarray(turned), pixels(3, height=12, width=20))


def test_colour_profile_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(np.asarray(decode(BytesIO(encoded(RGB, icc_profile=profile)), named="it")), np.asarray(RGB))


BROKEN = {
    "empty": b"",
    "text": b"no image at all",
    "truncated png": encoded(RGB)[:-30],
    "truncated jpeg": encoded(picture(3, height=64, width=64), "JPEG")[:-200],
    "png with a broken chunk": encoded(RGB)[:45] + b"XXXXXXXX" + encoded(RGB)[53:],
    "half a header": encoded(RGB)[:20],
    "truncated webp": encoded(RGB, "WEBP")[:-10],
    "truncated gif": encoded(RGB.convert("P"), "GIF")[:-100],
    "truncated tiff": encoded(RGB, "TIFF")[:100],
}


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("content", BROKEN.values(), ids=list(BROKEN))
def test_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    source = ImageFiles(root=tmp_path, names=np.array([b"broken.jpg"]))
    with pytest.raises(DatasetError, match=rf"{tmp_path}/broken\.jpg cannot be decoded as an image: .+"):
        source.load(0)


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DatasetError, match=r"Image size \(240 pixels\) exceeds"):
        decode(BytesIO(encoded(RGB)), named="it")


def test_large_image_is_decoded_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    image = decode(BytesIO(encoded(RGB)), named="it")
    assert np.array_equal(np.asarray(image), np.asarray(RGB))


def test_missing_file_is_named(tmp_path: Path) -> None:
    source = ImageFiles(root=tmp_path, names=np.array([b"none.png"]))
    with pytest.raises(DatasetError, match=r"none\.png .*No such file"):
        source.load(0)


def test_file_name_of_any_bytes_is_read(tmp_path: Path) -> None:
    name = "Fußgänger \x1b[2J\udcff.png"
    RGB.save(tmp_path / "plain.png")
    (tmp_path / "plain.png").rename(tmp_path / name)
    source = ImageFiles(root=tmp_path, names=np.array([name.encode(errors="surrogateescape")]))
    assert np.array_equal(np.asarray(source.load(0)), np.asarray(RGB))
    assert "\x1b" not in source.describe(0)
    assert source.sizes(np.array([0])).tolist() == [(tmp_path / name).stat().st_size]


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def rows(values: list[dict | None], *, files_in: Path | None = None) -> ImageRows:
    table = datasets.Dataset(pa.table({"image": pa.array(values, type=STRUCT)}))
    return ImageRows(rows=table.with_format("arrow"), column="image", name="animals", files_in=files_in)


def test_rows_of_bytes_are_decoded() -> None:
    contents = [encoded(picture(seed)) for seed in range(5)]
    source = rows([{"bytes": content, "path": "x.png"} for content in contents])
    for place in range(5):
        assert np.array_equal(np.asarray(source.load(place)), pixels(place))
    assert source.sizes(np.array([4, 0])).tolist() == [len(contents[4]), len(contents[0])]
    assert source.describe(3) == 'row 3 of animals, column "image"'


def test_rows_name_files_of_the_data_sets_own_folder_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "cache/a.png", tmp_path / "secret.png"
    inside.parent.mkdir()
    for path in (inside, outside):
        RGB.save(path)
    (tmp_path / "cache/link.png").symlink_to(outside)
    paths = [str(inside), str(outside), str(tmp_path / "cache/../secret.png"), str(tmp_path / "cache/link.png"), None]
    source = rows([*({"bytes": None, "path": path} for path in paths), None], files_in=tmp_path / "cache")
    assert np.array_equal(np.asarray(source.load(0)), np.asarray(RGB))
    assert source.sizes(np.array([0])).tolist() == [inside.stat().st_size]
    for place in (1, 2, 3, 4, 5):
        with pytest.raises(DatasetError, match=f"row {place} of animals.* names no file of"):
            source.load(place)
        with pytest.raises(DatasetError, match=f"row {place} of animals"):
            source.sizes(np.array([place]))
    with pytest.raises(DatasetError, match="names no file"):
        rows([{"bytes": None, "path": str(inside)}]).load(0)


def test_broken_row_is_named() -> None:
    with pytest.raises(DatasetError, match='row 1 of animals, column "image" cannot be decoded'):
        rows([{"bytes": encoded(RGB)}, {"bytes": b"x"}]).load(1)
