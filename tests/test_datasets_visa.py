"""VisA in both of its layouts, and the paper's protocols.

The tree is made of real images: ELPV's normal cells and painted defects, with masks that hold
class ids, laid out and named as published.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spdlib.datasets import COLUMNS, SampleImages, elpv, load, mvtec, problems, visa
from spdlib.datasets.defects import paint
from spdlib.datasets.protocols import few_shot, high_shot, one_class

# Normal samples of each object as published; 100 anomalies each.
SIZES = dict(pcb1=1004, pcb2=1001, pcb3=1006, pcb4=1005, capsules=602, candle=1000)
SIZES |= dict(macaroni1=1000, macaroni2=1000, cashew=500, chewinggum=503, fryum=500)
SIZES |= dict(pipe_fryum=500)
NORMAL, ANOMALIES = 20, 10  # of each object in the small tree
SPLITS = {
    "1cls": lambda label, i: "train" if label == "normal" and i % 10 else "test",
    "2cls_highshot": lambda label, i: "train" if i % 5 < 3 else "test",
    "2cls_fewshot": lambda label, i: "train" if i % 5 == 1 else "test",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two objects in the published layout."""
    root = tmp_path_factory.mktemp("data") / "VisA"
    lines = {name: ["object,split,label,image,mask"] for name in SPLITS}
    cells = elpv()
    for name, category in (("candle", "mono"), ("pcb1", "poly")):
        normal = cells[(cells.category == category) & (cells.label == 0)].head(NORMAL + ANOMALIES)
        painted = paint(normal.tail(ANOMALIES), root.parent / name)
        data = root / name / "Data"
        for part in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
            (data / part).mkdir(parents=True)
        notes = ["image,label,mask"]
        for i, path in enumerate(normal.path.head(NORMAL)):
            image = f"{name}/Data/Images/Normal/{i:04d}.JPG"
            Image.open(path).convert("RGB").save(root / image, format="JPEG")
            notes.append(f"{image},normal,")
            for file, split in SPLITS.items():
                lines[file].append(f"{name},{split('normal', i)},normal,{image},")
        for i, row in enumerate(painted.itertuples()):
            image = f"{name}/Data/Images/Anomaly/{i:03d}.JPG"
            mask = f"{name}/Data/Masks/Anomaly/{i:03d}.png"
            Image.open(row.path).convert("RGB").save(root / image, format="JPEG")
            ids = np.array(Image.open(row.mask_path)) // 255 * np.uint8(1 + i % 5)
            Image.fromarray(ids).save(root / mask)
            notes.append(f'{image},"bent,scratch",{mask}' if i else f"{image},melt,{mask}")
            for file, split in SPLITS.items():
                lines[file].append(f"{name},{split('anomaly', i)},anomaly,{image},{mask}")
        (root / name / "image_anno.csv").write_text("\n".join(notes))
    (root / "split_csv").mkdir()
    for file, rows in lines.items():  # published with Windows' line ends
        (root / "split_csv" / f"{file}.csv").write_bytes(("\r\n".join(rows) + "\r\n").encode())
    return root


@pytest.fixture(scope="module")
def arranged(tree):
    """The same, re-arranged as the authors' script does it."""
    root = tree.parent / "VisA_pytorch"
    for file in SPLITS:
        for row in pd.read_csv(tree / "split_csv" / f"{file}.csv").itertuples():
            bad = row.label == "anomaly"
            folder = root / file / row.object
            target = folder / row.split / ("bad" if bad else "good")
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / row.image, target)
            if bad:
                truth = folder / "ground_truth" / ("" if file == "1cls" else row.split) / "bad"
                truth.mkdir(parents=True, exist_ok=True)
                ids = np.array(Image.open(tree / row.mask))
                Image.fromarray((ids > 0).astype(np.uint8) * 255).save(truth / Path(row.mask).name)
    return root


def splits(table):
    return table.groupby(["split", "label"]).size().to_dict()


def published(tree, file):
    """What a split file says, read without any of the library."""
    lines = (tree / "split_csv" / f"{file}.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    return {image: (split, int(label == "anomaly"), mask) for _, split, label, image, mask in rows}


@pytest.mark.parametrize(
    ("protocol", "file"),
    [("one_class", "1cls"), ("high_shot", "2cls_highshot"), ("few_shot", "2cls_fewshot")],
)
def test_split_files_are_followed_to_the_letter(tree, protocol, file):
    table = visa(tree, protocol=protocol)
    assert list(table.columns) == list(COLUMNS)
    expected = published(tree, file)
    assert len(table) == len(expected) == 2 * (NORMAL + ANOMALIES)
    for row in table.itertuples():
        split, label, mask = expected[Path(row.path).relative_to(tree).as_posix()]
        assert (row.split, row.label) == (split, label)
        assert (row.mask_path and Path(row.mask_path).relative_to(tree).as_posix()) == (
            mask or None
        )
    assert problems(table) == []


def test_defects_and_masks(tree):
    table = visa(tree, "pcb1")
    assert table.category.unique().tolist() == ["pcb1"]
    anomalies = table[table.label == 1]
    assert anomalies.defect.value_counts().to_dict() == {"bent,scratch": ANOMALIES - 1, "melt": 1}
    assert (table.defect[table.label == 0] == "good").all()
    assert all(sample["mask"].any() for sample in SampleImages(anomalies, size=64))


def test_the_rearranged_layout_holds_the_same(tree, arranged):
    for protocol in ("one_class", "high_shot", "few_shot"):
        raw, other = visa(tree, protocol=protocol), visa(arranged, protocol=protocol)
        for table in (raw, other):
            table["name"] = [Path(path).name for path in table.path]
        key = ["category", "split", "label", "name"]
        pd.testing.assert_frame_equal(
            raw[key].sort_values(key, ignore_index=True),
            other[key].sort_values(key, ignore_index=True),
        )
        assert (other.mask_path.notna() == (other.label == 1)).all()
    assert load(arranged / "1cls").equals(visa(arranged)) and load(tree).equals(visa(tree))
    assert splits(mvtec(arranged / "1cls")) == splits(visa(tree))
    assert splits(load(arranged / "2cls_highshot")) == splits(visa(tree, protocol="high_shot"))


def test_protocols_follow_the_files_whatever_table_they_get(tree, arranged):
    table = visa(tree)
    official = visa(tree, protocol="high_shot")
    for one, other in ((high_shot(table, seed=5), official), (one_class(official), table)):
        assert dict(zip(one.path, one.split, strict=True)) == dict(
            zip(other.path, other.split, strict=True)
        )
    shots = few_shot(table, k=2, seed=1)
    pool = visa(tree, protocol="few_shot")
    assert set(shots.path[shots.split == "train"]) < set(pool.path[pool.split == "train"])
    assert set(shots.path[shots.split == "test"]) == set(pool.path[pool.split == "test"])
    assert splits(shots) == {("train", 0): 4, ("train", 1): 4, ("test", 0): 32, ("test", 1): 16}
    with pytest.raises(ValueError, match=r"k: 3 samples .* hold 2 anomalous ones of candle"):
        few_shot(table, k=3)
    with pytest.raises(ValueError, match=r"arranged for 1cls; high_shot needs .*2cls_highshot"):
        high_shot(visa(arranged))
    assert splits(few_shot(visa(arranged, protocol="few_shot"), k=2)) == splits(shots)


def test_visa_says_what_is_wrong(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="download_visa"):
        visa(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither split_csv nor 1cls"):
        visa(tmp_path)
    with pytest.raises(ValueError, match=r"cashew not among those of .*: candle, pcb1"):
        visa(tree, "cashew")
    with pytest.raises(ValueError, match="'two_class' not among one_class"):
        visa(tree, protocol="two_class")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "candle").mkdir()
    file = tmp_path / "split_csv" / "1cls.csv"
    file.write_text("object,split,label,image\ncandle,train,normal,x.JPG\n")
    with pytest.raises(ValueError, match="columns are missing: mask"):
        visa(tmp_path)
    file.write_text("object,split,label,image,mask\ncandle,val,normal,x.JPG,\n")
    with pytest.raises(ValueError, match="'val' is none of test, train"):
        visa(tmp_path)
    file.write_text("object,split,label,image,mask\ncandle,train,normal,candle/x.JPG,\n")
    assert problems(visa(tmp_path)) == [f"{tmp_path / 'candle' / 'x.JPG'}: missing"]


def full_size(root=Path("elsewhere")):
    """A table with as many samples as VisA, whose files nobody opens."""
    rows = [
        (f"{root}/{name}/Data/Images/{kind}/{i}.JPG", None, label, name, kind, "test")
        for name, size in SIZES.items()
        for label, kind, count in ((0, "Normal", size), (1, "Anomaly", 100))
        for i in range(count)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def counted(table):
    counts = splits(table)
    return {s: tuple(counts.get((s, label), 0) for label in (0, 1)) for s in ("train", "test")}


def test_drawn_splits_have_the_published_sizes():
    """The shares are those behind the published files: rounded alike, they give their totals."""
    table = full_size()
    assert counted(one_class(table)) == {"train": (8659, 0), "test": (962, 1200)}
    assert counted(high_shot(table)) == {"train": (5773, 720), "test": (3848, 480)}
    for k in (5, 10):
        expected = {"train": (12 * k, 12 * k), "test": (7697, 960)}
        assert counted(few_shot(table, k)) == expected


def test_draws_are_the_same_everywhere():
    """Cells noted once: a version or a platform that draws others is to be noticed."""
    shots = few_shot(elpv("mono"), k=2, seed=3)
    names = [Path(path).stem for path in shots.path[shots.split == "train"]]
    assert names == ["cell0027", "cell0380", "cell0910", "cell0964"]


def test_draws_differ_by_seed_and_not_by_what_else_is_there():
    both, mono = elpv(), elpv("mono")
    for draw in (high_shot, lambda t, seed=0: few_shot(t, 5, seed)):
        alone, among = draw(mono, seed=2), draw(both, seed=2)
        kept = among[among.category == "mono"].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, kept)
        assert not draw(mono, seed=3).equals(alone)
    shots = [few_shot(mono, 5, seed) for seed in range(5)]
    tests = [tuple(shot.path[shot.split == "test"]) for shot in shots]
    train = [tuple(shot.path[shot.split == "train"]) for shot in shots]
    assert len(set(tests)) == 1 and len(set(train)) == 5
    ten = few_shot(mono, 10, seed=0)
    assert set(train[0]) < set(ten.path[ten.split == "train"])
    other = few_shot(mono, 5, pool_seed=1)
    assert set(other.path[other.split == "test"]) != set(tests[0])


def test_protocols_say_what_is_missing():
    mono = elpv("mono")
    normal, few = mono[mono.label == 0], mono.groupby("label").head(1)
    assert one_class(normal).split.equals(normal.split.reset_index(drop=True)), "no anomalies"
    for protocol in (high_shot, lambda table: few_shot(table, 1)):
        with pytest.raises(ValueError, match="mono has no anomalous samples"):
            protocol(normal)
    with pytest.raises(ValueError, match="mono has one normal sample"):
        high_shot(few)
    with pytest.raises(ValueError, match="k: 0"):
        few_shot(mono, 0)
    with pytest.raises(ValueError, match="the table is empty"):
        one_class(mono.head(0))
