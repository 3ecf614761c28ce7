"""Which files of a folder are samples, with which masks; what is refused, and what is said."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from spdlib.datasets import check, elpv, elpv_painted, load, painted, problems
from spdlib.datasets.defects import DRAWN, KINDS, paint, paint_image
from spdlib.datasets.files import walk
from spdlib.datasets.samples import make_table, read_image, sample
from spdlib.datasets.tree import tree

RNG = np.random.default_rng(0)


def put(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (32, 32), np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(path)
    return path


def dot():
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 8:16] = 255
    return mask


def parts(root, normal=8, anomaly=3, masks=False):
    for number in range(normal):
        put(root / "normal" / f"{number}.png")
    for number in range(anomaly):
        put(root / "anomaly" / "dent" / f"{number}.png")
        if masks:
            put(root / "masks" / "dent" / f"{number}.png", dot())
    return root


def nut(root, good=6):
    for number in range(good):
        put(root / "train" / "good" / f"{number}.png")
    for number in range(3):
        put(root / "test" / "good" / f"{number}.png")
        put(root / "test" / "bent" / f"{number}.png")
        put(root / "ground_truth" / "bent" / f"{number}_mask.png", dot())
    return root


def visa_1cls(root):
    return nut(root / "1cls" / "pcb").parents[1]


def imagenet(root):
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("a", "b"):
            for number in range(count):
                put(root / split / kind / f"{number}.png")
    return root


def plain(root):
    for number in range(20):
        put(root / "any" / f"{number}.png")
    return root


# What is trained on is not tested on


@pytest.mark.parametrize(
    "make",
    [parts, lambda root: parts(root, masks=True), lambda root: parts(root, anomaly=0), nut,
     visa_1cls, imagenet, plain],
)  # fmt: skip
def test_training_and_test_images_are_disjoint(tmp_path, make):
    table = load(make(tmp_path / "root"))
    train = table[(table.split == "train") & (table.label == 0)]
    test = table[table.split == "test"]
    assert len(train) >= 2 and len(test) and (table.label[table.split == "train"] == 0).all()
    pixels = [{read_image(path).numpy().tobytes() for path in rows.path} for rows in (train, test)]
    assert not set(train.path) & set(test.path) and not pixels[0] & pixels[1]
    masks = {str(path) for path in walk(tmp_path) if {"masks", "ground_truth"} & {*path.parts}}
    assert not set(table.path) & masks
    assert set(table.mask_path.dropna()) == masks
    assert problems(table) == []


@pytest.mark.parametrize("name", ["elpv", "elpv_painted"])
def test_elpv_is_disjoint_too(name):
    table = load(name, "mono")
    train = set(table.path[table.split == "train"])
    test = set(table.path[table.split == "test"])
    assert train and test and not train & test


# Files that are no samples


def test_hidden_files_and_folders_are_no_samples(tmp_path):
    roots = [parts(tmp_path / "own", masks=True), nut(tmp_path / "nut"), plain(tmp_path / "tree")]
    clean = [load(root) for root in roots]
    for root in roots:
        for folder in {path.parent for path in walk(root)}:
            first = next(folder.glob("*.png"))
            for hidden in (".ipynb_checkpoints", "__MACOSX"):
                (folder / hidden).mkdir()
                shutil.copy(first, folder / hidden / "copy.png")
            for name in (f"._{first.name}", ".DS_Store", "Thumbs.db", "desktop.ini"):
                (folder / name).write_bytes(b"none")
        (root / "__MACOSX" / "normal").mkdir(parents=True)
    for root, before in zip(roots, clean, strict=True):
        table = load(root)
        assert table.equals(before) and problems(table) == []


def test_linked_folders_are_read_once_and_loops_not_at_all(tmp_path):
    root = parts(tmp_path / "own")
    elsewhere = parts(tmp_path / "other").joinpath("normal")
    (root / "normal" / "linked").symlink_to(elsewhere)
    (root / "normal" / "again").symlink_to(elsewhere)
    (root / "normal" / "loop").symlink_to(root / "normal")
    (root / "normal" / "up").symlink_to(root)
    table = load(root)
    assert (table.label == 0).sum() == 16 and (table.label == 1).sum() == 3
    assert check(table) is table


def test_what_is_left_out_is_said_in_a_line(tmp_path):
    root = parts(tmp_path / "own")
    put(root / "originals" / "a.png")
    for name in ("a.heic", "b.heic", "c.npy", "notes.txt"):
        (root / "normal" / name).write_bytes(b"none")
    with pytest.warns(UserWarning, match=r"1 images lie(?s:.*)3 files .*\.heic \(2\), \.npy"):
        check(load(root))
    assert all(line.startswith("doubtful: ") for line in problems(load(root)))


def test_other_formats_are_samples_too(tmp_path):
    for number in range(4):
        put(tmp_path / "normal" / f"{number}.gif")
        put(tmp_path / "normal" / f"{number}.ppm")
    assert len(load(tmp_path)) == 8


# Trees of good parts


@pytest.mark.parametrize(
    ("folders", "odd"),
    [
        (["good", "defect"], "defect"),
        (["good", "scuff"], "scuff"),
        (["train/ok_front", "test/ok_front", "test/def_front"], "def_front"),
        (["images", "masks"], "masks"),
        (["a", "a/Ground Truth"], "Ground Truth"),
        (["a", "BadParts"], "BadParts"),
        (["x/parts/normal", "x/parts/anomaly"], "x/parts/anomaly"),
        (["Data/Images/Normal", "Data/Images/Anomaly"], "Anomaly"),
        (["normal", "abnormal"], "abnormal"),
        (["normal", "anomaly", "mask"], "mask"),
        (["normal", "schmutz"], "schmutz"),
        (["normal/defects"], "defects"),
        (["a/normal", "a/anomaly", "b/good", "b/broken"], "b/broken"),
        (["a/normal", "a/anomaly", "b/anomaly"], "b/anomaly"),
        (["train/good", "test/bent", "ground_truths"], "ground_truths"),
    ],
)
def test_folders_that_may_hold_defects_or_masks_are_refused(tmp_path, folders, odd):
    for folder in folders:
        for number in range(4):
            put(tmp_path / "root" / folder / f"{number}.png")
    with pytest.raises(ValueError, match=rf"{odd} (?s:.*)normal/, anomaly/"):
        load(tmp_path / "root")


def test_masks_beside_their_images_are_refused(tmp_path):
    for number in range(4):
        put(tmp_path / f"{number}.png")
        put(tmp_path / f"{number}_label.bmp", dot())
    with pytest.raises(ValueError, match=r"named as a mask and lies beside 0\.png"):
        load(tmp_path)
    with pytest.raises(ValueError, match="named like defects or masks"):
        tree(plain(tmp_path / "masks"))
    with pytest.warns(UserWarning, match="taken for good parts"):
        tree(plain(tmp_path / "bad"))
    plain(tmp_path / "good")
    with pytest.raises(ValueError, match="named like defects or masks"):
        tree(tmp_path / "bad")


def test_a_tree_has_its_subfolders_as_categories(tmp_path):
    root = imagenet(tmp_path)
    assert load(root, "b").groupby("split").size().to_dict() == {"train": 4, "test": 2}
    with pytest.raises(ValueError, match="categories: c not among those of"):
        load(root, ["c"])
    put(root / "other" / "0.png")
    assert len(load(root)) == 12


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_few_normal_images(tmp_path, count):
    root = parts(tmp_path / "screws", normal=count, masks=True)
    (root / "normal").mkdir(exist_ok=True)
    if count < 3:
        with pytest.raises(ValueError, match=r"screws/normal holds .*; two to train on"):
            load(root)
    else:
        split = load(root).query("label == 0").split.value_counts()
        assert split["train"] >= 2 and split["test"] == (1 if count == 3 else 2)


def test_names_of_folders(tmp_path, monkeypatch):
    root = parts(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = load(root)
    places = {"mine": tmp_path, "./mine/": tmp_path, ".": root, "..": root / "normal"}
    for name, cwd in (places | {"~/mine": root}).items():
        monkeypatch.chdir(cwd)
        assert load(name).equals(expected)
    assert set(expected.category) == {"mine"}


# Masks by name


@pytest.mark.parametrize(
    "name",
    ["dent/{}.png", "dent/{}_mask.png", "dent/{}_gt.png", "dent/{}_label.tif", "dent/{}.jpg.png",
     "{}.png", "Dent/{}.png", "dent/{}-mask.png", "dent/mask_{}.png", "dent/{}_MASK.PNG",
     "anomaly/dent/{}.png", "dent/{}.jpg_mask.png", "{}_groundtruth.bmp", "dent/gt-{}.gif"],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["own", "mvtec"])
def test_masks_are_found_by_the_names_people_give(tmp_path, name, layout):
    root = parts(tmp_path / "own", anomaly=0)
    images, masks = root / "anomaly" / "dent", root / "masks"
    if layout == "mvtec":
        root = nut(tmp_path / "mvtec" / "nut")
        shutil.rmtree(root / "ground_truth")
        shutil.rmtree(root / "test" / "bent")
        images, masks = root / "test" / "dent", root / "ground_truth"
        name = name.replace("anomaly/", "test/")
    for stem in ("0", "1a", "face_mask"):
        put(images / f"{stem}.jpg")
        put(masks / name.format(stem), dot())
    table = load(root)
    anomalies = table[table.label == 1]
    for path, mask in zip(anomalies.path, anomalies.mask_path, strict=True):
        stem = os.path.basename(path).removesuffix(".jpg")
        assert mask == str(masks / name.format(stem))
    assert problems(table) == []


def test_masks_that_fit_nothing_are_an_error(tmp_path):
    root = parts(tmp_path / "own")
    for number in range(3):
        put(root / "masks" / "dent" / f"{number + 7}.png", dot())
    with pytest.raises(ValueError, match=r"none of its 3 masks fits .*dent/7\.png"):
        load(root)
    put(root / "masks" / "dent" / "1.png", dot())
    assert any("3 masks fit no image" in line for line in problems(load(root)))


@pytest.mark.parametrize(
    ("images", "masks", "line"),
    [
        (["7.png", "7.jpg"], ["7.png"], "one mask fits 2 images"),
        (["7.png"], ["7.png", "7_mask.png"], "two masks fit it"),
        (["7.png"], ["7.bmp", "7.tif"], "two masks fit it"),
        (["7.png", "8.png"], ["7.png", "7_mask.png", "gt_8.png", "none.png"], "two masks fit it"),
        (["dent/7.png", "hole/7.png"], ["7.png"], "one mask fits 2 images"),
    ],
)
def test_nothing_is_guessed_where_names_are_ambiguous(tmp_path, images, masks, line):
    root = parts(tmp_path / "own", anomaly=0)
    for name in images:
        put(root / "anomaly" / name)
    for name in masks:
        put(root / "masks" / name, dot())
    with pytest.raises(ValueError, match=line):
        check(load(root))


def test_masks_of_normal_images_are_not_taken_for_others(tmp_path):
    root = parts(tmp_path / "own", anomaly=0)
    put(root / "anomaly" / "1.png")
    put(root / "masks" / "1.png", dot())
    put(root / "masks" / "normal" / "1.png", np.zeros((32, 32), np.uint8))
    table = load(root)
    assert table.mask_path.dropna().tolist() == [str(root / "masks" / "1.png")]
    assert problems(table) == []


def test_contradictions_are_named(tmp_path):
    parts(tmp_path / "a", masks=True), parts(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "normal" / "0.png", tmp_path / "a" / "anomaly" / "dent" / "2.png")
    found = " ".join(problems(load(tmp_path)))
    assert "b: it has no masks, though a has" in found
    assert "0.png: normal, and the same image anomalous" in found


# Painted defects


def test_half_of_the_held_out_normal_images_are_painted_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_DATA", str(tmp_path / "data"))
    cells = elpv("poly", test_fraction=0.03)
    assert painted(cells).equals(elpv_painted("poly", test_fraction=0.03))
    table = load(parts(tmp_path / "own", normal=20, anomaly=0))
    both = painted(table)
    assert both.groupby(["split", "label"]).size().to_dict() == {
        ("train", 0): 14, ("test", 0): 3, ("test", 1): 3,
    }  # fmt: skip
    assert painted(load(parts(tmp_path / "three", normal=3))).label.sum() == 0


def test_painting_follows_the_content(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDLIB_DATA", str(tmp_path / "data"))
    rows = [sample(put(tmp_path / "a" / f"{i}.bmp"), 0, "a", "good", "test") for i in range(2)]
    first = paint(make_table(rows))
    put(tmp_path / "a" / "0.bmp")  # as many bytes
    second = paint(make_table(rows))
    assert set(first.path).isdisjoint(second.path)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = [row | {"path": row["path"].replace("/a/", "/b/")} for row in rows]
    assert paint(make_table(moved)).path.tolist() == second.path.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_large_images_get_a_defect_of_the_same_kind(kind):
    shape = (2 * DRAWN + 130, 3 * DRAWN // 2)
    image = np.full((*shape, 3), (60, 130, 180), np.uint8)
    changed, mask, _ = paint_image(image, kind, np.random.default_rng(2))
    np.testing.assert_array_equal((changed != image).any(2), mask)
    assert 0.001 <= mask.mean() <= 0.05 and mask[: int(0.06 * shape[0])].sum() == 0


def test_an_image_too_small_to_paint_on_is_named(tmp_path):
    rows = [sample(put(tmp_path / "tiny.png", dot()[:4, :4]), 0, "a", "good", "test")]
    with pytest.raises(ValueError, match=r"tiny\.png: no painted crack shows"):
        paint(make_table(rows), tmp_path / "out", ["painted crack"])
