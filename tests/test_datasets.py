"""Tables of MVTec AD, of one's own folder and by name; images and masks; problems."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.ndimage import label as components

from spdlib.datasets import (
    COLUMNS,
    SampleImages,
    check,
    elpv,
    elpv_painted,
    folder,
    load,
    mvtec,
    problems,
)
from spdlib.datasets.samples import read_mask, resize_mask


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="JPEG" if path.suffix.lower() == ".jpg" else "PNG")


@pytest.fixture
def picture():
    """Makes another small picture at each call."""
    rng = np.random.default_rng(0)
    return lambda: rng.integers(0, 255, (40, 40, 3), np.uint8)


@pytest.fixture
def dot():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = 255
    return mask


@pytest.fixture
def screws(tmp_path, picture, dot):
    """A tree like MVTec AD's with all its variants."""
    root = tmp_path / "mvtec"
    for name in ("000.png", "001.JPG", "002.jpeg"):
        save(root / "screw" / "train" / "good" / name, picture())
    save(root / "screw" / "test" / "good" / "000.PNG", picture())
    for defect, mask in (("bent", "000_mask.png"), ("cut", "000.PNG"), ("missing", None)):
        save(root / "screw" / "test" / defect / "000.jpg", picture())
        if mask:
            save(root / "screw" / "ground_truth" / defect / mask, dot)
    for name in ("000.png", "001.gif"):
        save(root / "nut" / "train" / "good" / name, picture())
    (root / "nut" / "train" / "good" / "notes.txt").write_text("no image")
    (root / "empty" / "train" / "good").mkdir(parents=True)
    return root


def test_mvtec_reads_all_variants(screws):
    table = mvtec(screws, "screw")
    assert list(table.columns) == list(COLUMNS)
    counts = table.groupby(["split", "defect", "label"]).size().to_dict()
    expected = {(split, "good", 0): n for split, n in (("train", 3), ("test", 1))}
    expected |= {("test", defect, 1): 1 for defect in ("bent", "cut", "missing")}
    assert counts == expected
    masks = table[table.label == 1].set_index("defect").mask_path
    assert masks.isna().to_dict() == {"bent": False, "cut": False, "missing": True}
    assert problems(table) == []
    assert mvtec(screws / "screw").equals(table) and load(screws / "screw").equals(table)
    assert list(load(screws, ["nut", "screw"]).category.unique()) == ["nut", "screw"]


def test_mvtec_says_what_is_wrong(screws):
    with pytest.raises(ValueError, match=r"bolt not among those of .*: empty, nut, screw"):
        mvtec(screws, "bolt")
    with pytest.raises(ValueError, match=r"empty/train/good holds no images; two are needed"):
        mvtec(screws)
    with pytest.raises(ValueError, match=r"test/bent lies beside good/(?s:.*)normal/, anomaly/"):
        load(screws / "screw" / "test")
    with pytest.raises(FileNotFoundError, match="README"):
        mvtec(screws / "nowhere")


def test_a_folder_of_ones_own(tmp_path, picture, dot):
    root = tmp_path / "parts"
    for number in range(10):
        save(root / "normal" / f"{number}.png", picture())
    save(root / "anomaly" / "a.jpg", picture())
    save(root / "anomaly" / "dent" / "b.JPG", picture())
    save(root / "masks" / "dent" / "b_mask.png", dot)
    table = load(root)
    assert (table.category == "parts").all()
    counts = table.groupby(["split", "defect", "label"]).size().to_dict()
    assert counts == {
        ("train", "good", 0): 7,
        ("test", "good", 0): 3,
        ("test", "anomaly", 1): 1,
        ("test", "dent", 1): 1,
    }
    assert table.mask_path.notna().tolist() == [False] * 11 + [True]
    assert folder(root).equals(folder(root)) and not folder(root, seed=1).equals(table)
    assert list(load(tmp_path).category.unique()) == ["parts"]  # a folder per category
    for path in list((root / "normal").iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"parts/normal holds one image; two to train on and"):
        folder(root)


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="did you mean 'elpv_painted'"):
        load("elpv_paintd")
    with pytest.raises(FileNotFoundError, match="known names: elpv, elpv_painted, visa, mvtec"):
        load("/no/such/place")
    with pytest.raises(ValueError, match=r"holds no images(?s:.*)normal/, anomaly/"):
        load(tmp_path)
    (tmp_path / "notes.heic").write_text("no image")
    with pytest.raises(ValueError, match=r"its files are \.heic"):
        load(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file; name the folder"):
        load(tmp_path / "notes.heic")
    with pytest.raises(ValueError, match="categories: triple"):
        load("elpv", "triple")
    with pytest.raises(FileNotFoundError, match="known names"):
        load("")


def test_no_module_of_elpv_is_on_both_sides():
    """Borders of modules are counted off here; 44, of which 18 are mono, are published."""
    cells = elpv(doubtful=True)
    number = cells.path.str.extract(r"cell(\d+)", expand=False).astype(int)
    ends = [60, 360, 540, 900, 1614, 2144, 2216, 2396, 2444, 2624]  # of runs of one category
    borders, start = [], 0
    for end, count in zip(ends, [1, 5, 3, 6, 12, 9, 1, 3, 1, 3], strict=True):
        borders += [round(start + (end - start) * (i + 1) / count) for i in range(count)]
        start = end
    assert len(borders) == 44
    # A border within a run that lacks cells may be one off, by rounding.
    inside = number[[min(abs(n - b) for b in borders) > 1 for n in number]]
    block = np.searchsorted(borders, inside)
    rows = cells.loc[inside.index].assign(block=block)
    assert (rows.groupby("block").category.nunique() == 1).all()
    assert rows.drop_duplicates("block").category.value_counts().to_dict() == {
        "mono": 18,
        "poly": 26,
    }
    sides = rows.assign(held_out=rows.split == "test").groupby("block").held_out
    assert (sides.nunique() == 1).all()
    assert 8 < sides.first().sum() < 20


@pytest.mark.parametrize("fraction", [0.001, 0.3, 0.999])
def test_elpv_holds_out_whole_modules_nearest_to_the_fraction(fraction):
    for _, cells in elpv(test_fraction=fraction).groupby("category"):
        normal = cells[cells.label == 0]
        assert abs((normal.split == "test").mean() - fraction) < 0.1
        assert set(normal.split) == {"train", "test"}
        assert set(cells.split[cells.label == 1]) <= {"test", "aside"}


def test_painted_elpv_paints_on_half_of_the_held_out_cells(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_DATA", str(tmp_path))
    table = elpv_painted("mono", test_fraction=0.04, seed=2)
    cells = elpv("mono", test_fraction=0.04, seed=2)
    train = table[table.split == "train"]
    held_out = cells[(cells.split == "test") & (cells.label == 0)]
    assert set(train.path) == set(cells.path[cells.split == "train"])
    assert table.groupby(["split", "label"]).size().to_dict() == {
        ("train", 0): len(train),
        ("test", 0): len(held_out) - len(held_out) // 2,
        ("test", 1): len(held_out) // 2,
    }
    # No cell is shown both clean and painted, and none is trained on.
    clean = set(table.path[(table.split == "test") & (table.label == 0)])
    assert clean < set(held_out.path)
    sources = []
    for row in table[table.label == 1].itertuples():
        mask, pixels = read_mask(row.mask_path).numpy(), np.array(Image.open(row.path))
        (source,) = (
            path
            for path in held_out.path
            if np.array_equal(np.array(Image.open(path))[~mask], pixels[~mask])
        )
        sources.append(source)
    assert clean | set(sources) == set(held_out.path) and not clean & set(sources)
    both = elpv_painted(test_fraction=0.04, seed=2)
    assert both[both.category == "mono"].reset_index(drop=True).equals(table)


@pytest.mark.parametrize("sides", [(1000, 224), (300, 256), (768, 256), (200, 256)])
@pytest.mark.parametrize("angle", [0.0, 0.3, 0.785, 1.2])
def test_thin_lines_survive_in_one_piece(sides, angle):
    old, new = sides
    y, x = np.mgrid[:old, :old] - old / 2
    distance = np.abs(np.sin(angle) * x - np.cos(angle) * y + 0.3)
    line = torch.from_numpy((distance < 1) & (np.hypot(x, y) < 0.4 * old))
    resized = resize_mask(line, new).numpy()
    _, pieces = components(resized, np.ones((3, 3)))
    assert pieces == 1
    length = 0.8 * new
    assert 0.7 * length < resized.sum() < length * (2.2 + 2 * new / old)


def test_patches_keep_their_area():
    y, x = np.mgrid[:1000, :1400]
    disc = torch.from_numpy(np.hypot((y - 420) / 1.0, (x - 700) / 1.4) < 150)
    resized = resize_mask(disc, 256)
    assert resized.float().mean().item() == pytest.approx(disc.float().mean().item(), rel=0.02)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "I;16", "JPEG"])
def test_masks_of_any_kind(tmp_path, dot, mode):
    path = tmp_path / ("mask.jpg" if mode == "JPEG" else "mask.png")
    ids = dot // 255 * 3  # a class id, as VisA's masks hold
    if mode == "P":
        image = Image.fromarray(ids)
        image = image.convert("P")
        image.putpalette([0, 0, 0] * 256)
    elif mode == "I;16":
        image = Image.fromarray(ids.astype(np.uint16))
    elif mode in ("1", "JPEG"):
        image = Image.fromarray(dot).convert("1" if mode == "1" else "L")
    else:
        image = Image.fromarray(ids).convert(mode)
    image.save(path)
    np.testing.assert_array_equal(read_mask(path).numpy(), dot > 0)


def test_image_and_mask_are_cropped_together(tmp_path):
    pixels = np.zeros((90, 120), np.uint8)
    pixels[30:60, 20:100] = 255
    for name in ("image.png", "mask.png"):
        save(tmp_path / name, pixels)
    table = pd.DataFrame(
        [[str(tmp_path / "image.png"), str(tmp_path / "mask.png"), 1, "a", "b", "test"]],
        columns=list(COLUMNS),
    )
    sample = SampleImages(table, size=64)[0]
    bright = sample["image"][0] > 0.5
    assert sample["mask"].any() and (bright != sample["mask"]).float().mean() < 0.01


def test_problems_are_found_together(tmp_path, picture, dot):
    sound = picture()
    save(tmp_path / "sound.png", sound)
    save(tmp_path / "copy.png", sound)
    save(tmp_path / "photo.jpg", picture())
    shutil.copy(tmp_path / "photo.jpg", tmp_path / "again.JPG")
    save(tmp_path / "other.png", picture())
    save(tmp_path / "third.png", third := picture())
    Image.fromarray(third).save(tmp_path / "fourth.bmp")
    whole = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    save(tmp_path / "mask.png", dot)
    save(tmp_path / "small.png", dot[:30, :20])
    save(tmp_path / "blank.png", np.zeros_like(dot))
    listed = [  # image, mask, label, split, what is wrong
        ("sound.png", None, 0, "train", "the same image in test"),
        ("third.png", None, 0, "test", "the same image anomalous"),
        ("fourth.bmp", "mask.png", 1, "test", None),
        ("photo.jpg", None, 0, "train", "photo.jpg: normal, and the same image anomalous"),
        ("copy.png", None, 0, "test", None),
        ("again.JPG", "mask.png", 1, "test", None),
        ("gone.png", None, 0, "train", "gone.png: missing"),
        ("cut.jpg", None, 0, "train", "cut.jpg: the image does not decode"),
        ("text.png", None, 0, "test", "text.png: the image does not decode"),
        ("other.png", "small.png", 1, "test", "20 x 30 pixels, its image 40 x 40"),
        ("other.png", "blank.png", 1, "test", "blank.png: the mask has no anomalous pixel"),
        ("other.png", "text.png", 1, "test", "text.png: the mask does not decode"),
        ("other.png", "lost.png", 1, "test", "lost.png: missing"),
        ("other.png", None, 1, "test", "other.png: no mask, though others of a, dent, have one"),
    ]
    table = pd.DataFrame(
        [
            [str(tmp_path / i), m and str(tmp_path / m), label, "a", "dent" if label else "good", s]
            for i, m, label, s, _ in listed
        ],
        columns=list(COLUMNS),
    )
    found = problems(table)
    expected = [wrong for *_, wrong in listed if wrong]
    assert len(found) == len(expected)
    for wrong in expected:
        assert sum(wrong in line for line in found) >= 1, wrong
    with pytest.raises(ValueError, match="11 problems") as error:
        check(table)
    assert all(line in str(error.value) for line in found)
    many = pd.concat([table[table.path.str.endswith("gone.png")]] * 50)
    with pytest.raises(ValueError, match=r"50 problems(?s:.*)and 30 more") as error:
        check(many)
    assert str(error.value).count("\n") == 21


def test_sound_samples_have_no_problems():
    table = elpv("mono").groupby(["split", "label"]).head(5)
    assert check(table) is table
