"""Decoding: every mode becomes RGB as torchvision's loader makes it; what is broken is named."""

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


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode: str) -> None:
    image, kind, options = MODES[mode]
    content = encoded(image, kind, **options)
    with Image.open(BytesIO(content)) as opened:
        expected = np.asarray(opened.convert("RGB"))  # torchvision.datasets.folder.pil_loader
    found = decode(BytesIO(content), named="it")
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), expected)


def test_transparency_is_no_warning() -> None:
    decode(BytesIO(encoded(palette_with_transparency())), named="it")


def test_exif_does_not_turn() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = decode(BytesIO(encoded(RGB, "PNG", exif=exif)), named="it")
    assert np.array_equal(np.asarray(turned), pixels(3, height=12, width=20))


def test_colour_profiles_are_not_applied() -> None:
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
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    source = ImageFiles(root=tmp_path, names=np.array([b"broken.jpg"]))
    with pytest.raises(DatasetError, match=rf"{tmp_path}/broken\.jpg is no image that can be decoded: .+ Get it again"):
        source.load(0)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DatasetError, match=r"it is no image that can be decoded: Image size \(240 pixels\) exceeds"):
        decode(BytesIO(encoded(RGB)), named="it")


def test_what_pil_only_warns_of_is_decoded_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    image = decode(BytesIO(encoded(RGB)), named="it")
    assert np.array_equal(np.asarray(image), np.asarray(RGB))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = ImageFiles(root=tmp_path, names=np.array([b"none.png"]))
    with pytest.raises(DatasetError, match=r"none\.png is no image that can be decoded: .*No such file"):
        source.load(0)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = "Fußgänger \x1b[2J\udcff.png"
    RGB.save(tmp_path / "plain.png")
    (tmp_path / "plain.png").rename(tmp_path / name)
    source = ImageFiles(root=tmp_path, names=np.array([name.encode(errors="surrogateescape")]))
    assert np.array_equal(np.asarray(source.load(0)), np.asarray(RGB))
    assert "\x1b" not in source.describe(0)
    assert source.sizes(np.array([0])).tolist() == [(tmp_path / name).stat().st_size]


def rows(values: list[object], kind: pa.DataType, *, within: Path | None = None) -> ImageRows:
    table = datasets.Dataset(pa.table({"image": pa.array(values, type=kind)}))
    return ImageRows(rows=table.with_format("arrow"), column="image", name="animals", within=within)


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda content: {"bytes": content, "path": "x.png"}, STRUCT),
        (lambda content: {"bytes": content, "path": None}, STRUCT),
        (lambda content: content, pa.binary()),
        (lambda content: content, pa.large_binary()),
    ],
)
def test_rows_of_bytes(wrap, kind: pa.DataType) -> None:
    contents = [encoded(picture(seed)) for seed in range(5)]
    source = rows([wrap(content) for content in contents], kind)
    for place in range(5):
        assert np.array_equal(np.asarray(source.load(place)), pixels(place))
    assert source.sizes(np.array([4, 0])).tolist() == [len(contents[4]), len(contents[0])]
    assert source.describe(3) == 'row 3 of animals, column "image"'


def test_rows_that_name_files(tmp_path: Path) -> None:
    """Only files of the data set's own folder: a row is data, which may name any."""
    inside, outside = tmp_path / "cache/a.png", tmp_path / "secret.png"
    inside.parent.mkdir()
    for path in (inside, outside):
        RGB.save(path)
    (tmp_path / "cache/link.png").symlink_to(outside)
    named = [str(inside), str(outside), str(tmp_path / "cache/../secret.png"), str(tmp_path / "cache/link.png"), None]
    source = rows([{"bytes": None, "path": path} for path in named], STRUCT, within=tmp_path / "cache")
    assert np.array_equal(np.asarray(source.load(0)), np.asarray(RGB))
    assert source.sizes(np.array([0])).tolist() == [inside.stat().st_size]
    for place in (1, 2, 3, 4):
        with pytest.raises(DatasetError, match=f"row {place} of animals.* holds no image, and names no file of"):
            source.load(place)
        with pytest.raises(DatasetError, match=f"row {place} of animals"):
            source.sizes(np.array([place]))
    nowhere = rows([{"bytes": None, "path": str(inside)}], STRUCT)
    with pytest.raises(DatasetError, match="holds no image, and names no file"):
        nowhere.load(0)


def test_a_broken_row_is_named() -> None:
    source = rows([encoded(RGB), b"x"], pa.binary())
    source.load(0)
    with pytest.raises(DatasetError, match='row 1 of animals, column "image" is no image that can be decoded'):
        source.load(1)
