"""Images and masks as people have them: deep, turned, transparent, damaged, of every ending."""

import os
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from spdlib.datasets import SampleImages, load, problems, reading
from spdlib.datasets.files import SUFFIXES
from spdlib.datasets.reading import fitting_levels, read_image, read_mask, to_bytes
from spdlib.datasets.samples import make_table, sample

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 36), np.uint8)
COLOUR = RNG.integers(0, 256, (24, 36, 3), np.uint8)


def seen(path, **options):
    return read_image(path, **options).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "b.tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_images_are_mapped_by_their_depth(tmp_path, name, bits, channels):
    """Written by OpenCV, whose own reading is not used."""
    deep = RNG.integers(0, 2**bits, (24, 36, channels)).astype(np.uint16)
    deep[0, 0], deep[0, 1] = 2**bits - 1, 0
    if channels == 4:
        deep[..., 3] = 65535
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    compression = {"a.png": [], "a.tif": [cv2.IMWRITE_TIFF_COMPRESSION, 1]}
    lzw = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
    cv2.imwrite(str(tmp_path / name), deep[..., order], compression.get(name, lzw))
    expected = np.round(deep[..., :3] / (2**bits - 1) * 255)
    np.testing.assert_allclose(
        seen(tmp_path / name), np.broadcast_to(expected, (24, 36, 3)), atol=1
    )


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        ((GREY.astype(np.uint16) * 257).astype(">u2"), "I;16B"),
        (GREY.astype(np.int32) * 257, "I"),
        (GREY.astype(np.float32) / 255, "F"),
        (GREY.astype(np.float32), "F"),
        (GREY.astype(np.float32) * 257, "F"),
    ],
)
def test_other_deep_images_show_what_8_bits_show(tmp_path, pixels, mode):
    image = Image.frombytes(mode, (36, 24), pixels.tobytes())
    image.save(tmp_path / "a.tif")
    assert (seen(tmp_path / "a.tif") == GREY[..., None]).all()


def test_values_that_fill_little_of_a_depth_are_stretched(tmp_path):
    kelvin = (290 + GREY / 255 * 20).astype(np.float32)
    kelvin[3, 3] = np.nan
    Image.fromarray(kelvin).save(tmp_path / "a.tif")
    difference = np.abs(seen(tmp_path / "a.tif")[..., 0].astype(int) - GREY)
    difference[3, 3] = 0
    assert difference.max() <= 2
    Image.fromarray(np.full((5, 5), 700, np.uint16)).save(tmp_path / "flat.png")
    assert (seen(tmp_path / "flat.png") == round(700 / 1023 * 255)).all()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=40))
def test_bytes_keep_the_order_and_use_the_range(values):
    values = np.array(values, np.float32)
    levels = fitting_levels((values.min(), values.max()))
    mapped = to_bytes(values, levels).astype(int)
    assert (np.diff(mapped[np.argsort(values)]) >= 0).all()
    assert levels[0] <= values.min() and values.max() <= levels[1]
    if np.ptp(values) > 1e-3:
        assert np.ptp(mapped) >= 31


def test_a_categorys_images_share_their_levels_and_check_says_so(tmp_path):
    """A dark image stays dark beside a bright one; another category has levels of its own."""
    for category, factor in (("ten", 4), ("sixteen", 257)):
        for number in range(6):
            deep = np.roll(GREY, number).astype(np.uint16) * factor // (4 if number == 2 else 1)
            (tmp_path / category / "normal").mkdir(parents=True, exist_ok=True)
            Image.fromarray(deep).save(tmp_path / category / "normal" / f"{number}.png")
    table = load(tmp_path)
    assert table.groupby("category").levels.first().to_dict() == {
        "ten": (0.0, 1023.0),
        "sixteen": (0.0, 65535.0),
    }
    images = SampleImages(table, 32)
    means = [images[i]["image"].mean().item() for i in range(len(table))]
    dark = table.path.str.endswith("2.png").to_numpy()
    assert np.allclose(np.array(means)[dark] * 4, np.mean(np.array(means)[~dark]), rtol=0.06)
    lines = problems(table)
    assert len(lines) == 2 and all("more than 8 bits" in line for line in lines)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_images_and_masks_are_turned_alike(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = np.zeros((64, 96), np.uint8)
    mask[:20, :30] = 255
    path = tmp_path / f"a.{ending}"
    options = {"tiffinfo": {0x0112: orientation}} if ending == "tif" else {"exif": exif}
    Image.fromarray(mask).save(path, **options)
    Image.fromarray(mask).save(tmp_path / "as.png", exif=exif)
    with Image.open(tmp_path / "as.png") as image:
        shown = np.asarray(ImageOps.exif_transpose(image)) > 127
    np.testing.assert_array_equal(read_mask(path), shown)
    np.testing.assert_array_equal(seen(path)[..., 0] > 127, shown)
    Image.fromarray(mask.astype(np.uint16) * 257).save(tmp_path / "deep.png", exif=exif)
    assert seen(tmp_path / "deep.png").shape[:2] == shown.shape


def test_transparent_parts_are_black_and_marked_nowhere(tmp_path):
    hidden = np.dstack([COLOUR, np.where(GREY < 128, 0, 255).astype(np.uint8)])
    Image.fromarray(hidden).save(tmp_path / "a.png")
    expected = COLOUR * (GREY >= 128)[..., None]
    np.testing.assert_array_equal(seen(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), expected.any(2))
    palette = Image.fromarray(np.arange(6, dtype=np.uint8)[None]).convert("P")
    palette.save(tmp_path / "p.png", transparency=5)
    assert seen(tmp_path / "p.png")[0, :, 0].tolist() == [0, 1, 2, 3, 4, 0]


def test_palettes_are_read_as_they_look_or_as_ids(tmp_path):
    entries = np.zeros((8, 8), np.uint8)
    entries[:6] = 1  # black; a defect is white, which this palette calls 0
    for name, colours, marked in (
        ("seen", [255, 255, 255, 0, 0, 0], entries == 0),
        ("ids", [0, 0, 0, 0, 0, 0], entries == 1),
    ):
        image = Image.fromarray(entries).convert("P")
        image.putpalette(colours)
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), marked)


ENDINGS = ("gif", "pgm", "ppm", "jp2", "avif", "jfif", "jpe", "dib", "tga", "apng", "pcx", "qoi")


@pytest.mark.parametrize("ending", [*ENDINGS, "webp", "jpg", "bmp"])
def test_every_ending_is_read_and_its_first_frame(tmp_path, ending):
    smooth = np.array(Image.fromarray(GREY[:3, :4]).resize((36, 24)))
    more = [Image.fromarray(255 - smooth)] if ending in ("gif", "apng") else []
    options = {"save_all": True, "append_images": more} if more else {}
    image = Image.fromarray(smooth)
    image = image.convert("RGB") if ending == "qoi" else image
    image.save(tmp_path / f"a.{ending}", **options)
    assert f".{ending}" in SUFFIXES
    difference = seen(tmp_path / f"a.{ending}")[..., 0].astype(int) - smooth
    assert np.abs(difference).mean() < 4


def test_damaged_files_are_named(tmp_path):
    rng = np.random.default_rng(1)
    devnull, stderr = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    os.dup2(devnull, 2)  # libtiff talks
    try:
        for ending in ("png", "jpg", "bmp", "tif", "gif", "webp", "ppm"):
            path = tmp_path / f"bad.{ending}"
            Image.fromarray(COLOUR).save(path)
            whole = path.read_bytes()
            for _ in range(40):
                bad = bytearray(whole)
                for _ in range(rng.integers(1, 9)):
                    bad[rng.integers(min(len(bad), 120))] = rng.integers(256)
                path.write_bytes(bad[: rng.integers(1, len(bad) + 1)])
                for read in (read_image, read_mask):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        try:
                            read(path)
                        except ValueError as error:
                            assert path.name in str(error)
    finally:
        os.dup2(stderr, 2)


def test_a_broken_exif_does_not_spoil_the_image(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=b"Exif\0\0no such thing", quality=100)
    assert seen(tmp_path / "a.jpg").shape == (24, 36, 3)


def test_sizes_beyond_the_limit_are_refused_by_name(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setattr(reading, "MOST_MEGAPIXELS", 0)
    with pytest.raises(ValueError, match=r"a\.png.*36 x 24 pixels; .*SPDLIB_MEGAPIXELS"):
        read_image(tmp_path / "a.png")


def test_a_line_scan_of_182_megapixels_is_read(tmp_path):
    Image.new("L", (182_000, 1_000)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_mask(tmp_path / "a.png").shape == (1_000, 182_000)


def test_a_jpeg_is_decoded_at_twice_the_size_that_is_needed(tmp_path):
    Image.fromarray(COLOUR).resize((1600, 800)).save(tmp_path / "a.jpg")
    assert seen(tmp_path / "a.jpg", size=100).shape == (200, 400, 3)
    assert seen(tmp_path / "a.jpg", size=500).shape == (800, 1600, 3)


MASKS = {
    "the mask marks the whole image": np.full((24, 36), 1),
    "pixels of 1 to 3 beside those of 255": np.where(GREY < 100, GREY % 3, 0),
    "doubtful: 1 masks mark more than half": np.where(GREY < 200, 255, 0),
    "are they inverted": np.where(GREY < 200, 255, 0),
}


@pytest.mark.parametrize("line", MASKS)
def test_masks_that_are_probably_wrong_are_named(tmp_path, line):
    rows = []
    for number in range(3):
        image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        Image.fromarray(np.roll(GREY, number)).save(image)
        odd = number == 0 or "inverted" in line
        pixels = MASKS[line] if odd else np.zeros((24, 36), int)
        pixels[:4, :4] = 255 if not line.startswith("the mask marks") or not odd else 1
        Image.fromarray(pixels.astype(np.uint8)).save(mask)
        rows.append(sample(image, 1, "a", "dent", "test", mask))
    found = problems(make_table(rows))
    assert any(line in text for text in found), found
