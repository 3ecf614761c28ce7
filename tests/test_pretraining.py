"""Pretraining: what it logs, writes and refuses; that a killed run ends as an uninterrupted one."""

import copy
import json
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

from spdlib import paths
from spdlib.architectures import HALF_NORM, IMAGENET_NORM
from spdlib.datasets.tree import tree
from spdlib.encoders import load_encoder, read_provenance
from spdlib.images import Images, decode
from spdlib.loop import Callback, shared
from spdlib.methods import MoCo
from spdlib.pretraining import (
    COLUMNS,
    Pretraining,
    export,
    pretrain,
    starting_encoder,
)
from spdlib.pretraining.cli import main, tables
from spdlib.pretraining.presets import settings
from spdlib.pretraining.training import order

SMALL = {
    "encoder": "efficientnet_lite0", "weights": "random", "size": 32, "batch_size": 4, "epochs": 2,
}  # fmt: skip


def small(method="simclr", eta=0.5, **changes):
    if method == "moco":
        changes = {"queue": 8} | changes
    return settings(method, eta=eta, **SMALL | changes)


def noise(count=13, side=36, seed=0):
    return torch.randint(256, (count, 3, side, side), generator=generator(seed)).byte()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def weights(encoder):
    return torch.cat([value.double().flatten() for value in encoder.state_dict().values()])


@pytest.fixture
def folder(tmp_path):
    """ImageNet's layout: two classes of eight images, one more that is broken, two to watch."""
    root = tmp_path / "images"
    for number, pixels in enumerate(noise(18).permute(0, 2, 3, 1).numpy()):
        path = root / ("train" if number < 16 else "val") / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (root / "train" / "a" / "broken.png").write_bytes(b"not an image")
    return root


# What goes in


def test_every_image_is_in_an_epoch_once_and_processes_share_the_batch():
    def ordered(seed=5, start=0, **cut):
        return list(shared(order(11, 4, epochs=3, seed=seed, start=start), **cut))

    whole = ordered()
    assert len(whole) == 6 and all(len(batch) == 4 for batch in whole)
    epochs = [whole[i] + whole[i + 1] for i in (0, 2, 4)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert ordered(start=3) == whole[3:]
    assert ordered(seed=6) != whole
    both = [ordered(parts=2, process=p, processes=2) for p in (0, 1)]
    joined = [a + b for a, b in zip(*both, strict=True)]
    assert [a + b for a, b in zip(joined[::2], joined[1::2], strict=True)] == whole


def test_files_that_do_not_decode_give_way_to_the_next(folder, capsys):
    table = tree(folder)
    assert table.split.value_counts().to_dict() == {"train": 17, "test": 2}
    images = Images(table, size=16, memory=0)
    broken = [i for i in range(len(images)) if images.path(i).endswith("broken.png")]
    (number,) = broken
    batch = images[[number, 0]]
    assert batch["unreadable"].tolist() == broken
    assert batch["numbers"].tolist() == [number + 1, 0]
    assert torch.equal(batch["images"][0], images.read(number + 1)[0])
    with pytest.raises(ValueError, match=r"broken\.png: the image does not decode"):
        decode(table, 16)
    assert len(decode(table, 16, skip=True)) == len(table) - 1
    assert "broken.png: the image does not decode" in capsys.readouterr().out.split("skipped: ")[1]
    # What is held is what the files give, and as torchvision resizes them.
    held, at_once = Images(table, 16, skip=True), [i for i in range(len(images)) if i != number]
    assert torch.equal(held.images, torch.stack([images.read(i)[0] for i in at_once]))
    for i in (0, 9):
        pixels = torch.from_numpy(np.array(Image.open(held.path(i)))).permute(2, 0, 1)
        expected = torchvision.transforms.v2.functional.resize(pixels, [16, 16], antialias=True)
        assert torch.equal(held[[i]]["images"][0], expected)


def test_only_normal_images_of_the_training_split_are_trained_on(tmp_path):
    parts = (("train/good", 3), ("test/good", 5), ("test/bent", 2), ("ground_truth/bent", 2))
    for number, (part, count) in enumerate(parts):
        (tmp_path / "nut" / part).mkdir(parents=True)
        for i, pixels in enumerate(noise(count, seed=number).permute(0, 2, 3, 1).numpy()):
            name = f"{i}_mask.png" if "truth" in part else f"{i}.png"
            Image.fromarray(pixels).save(tmp_path / "nut" / part / name)
    train, watched = tables(str(tmp_path), 4)
    assert {path.split("/nut/")[1] for path in train.path} == {
        f"train/good/{i}.png" for i in (0, 1, 2)
    }
    assert watched.path.str.contains("test/good").all() and len(watched) == 4
    for most, count in ((0, 0), (1, 1), (5, 5), (99, 5)):
        assert len(tables(str(tmp_path), most, categories=["nut"])[1]) == count


def test_a_digest_is_of_what_the_files_hold_not_of_what_they_are_called(folder):
    before = Images(tree(folder), memory=0).digest()
    first = folder / "train" / "a" / "00.png"
    first.rename(first.with_name("000.png"))
    assert Images(tree(folder), memory=0).digest() == before
    first.with_name("000.png").write_bytes(b"other")
    assert Images(tree(folder), memory=0).digest() != before


# What comes out


@pytest.mark.parametrize(
    ("method", "eta"),
    [("simsiam", 0.0), ("simsiam", 0.5), ("moco", 0.5), ("simclr", 0.5), ("supervised", 0.5)],
)
def test_the_log_has_every_step_and_every_watch(method, eta):
    s = small(method, eta)
    encoder = starting_encoder(s)
    before = weights(encoder)
    labels = torch.arange(13) % 3
    history = pretrain(encoder, noise(), s, held_out=noise(5, seed=1), labels=labels)
    assert list(history.columns) == list(COLUMNS)
    assert (
        history.step.tolist() == list(range(7)) and history.epoch.tolist()[1:] == [1] * 3 + [2] * 3
    )
    watched = history.step.isin([0, 3, 6])
    for name in ("std", "effective_rank", "spot_auroc", "spot_aupr", "spot_projected"):
        assert (history[name].notna() == watched).all()
    steps = history.iloc[1:]
    expected = steps.baseline + (eta * steps.spd if eta else 0)
    np.testing.assert_allclose(steps.loss, expected, rtol=1e-5, atol=1e-6)
    assert history.spd_accuracy.notna().any() == (method == "supervised" and eta > 0)
    assert not encoder.training and not torch.equal(weights(encoder), before)
    rates = [s.learning_rate * s.rate_at(step, 6) for step in range(6)]
    np.testing.assert_allclose(steps.lr, rates)


def test_training_repeats_itself_and_leaves_the_callers_random_state():
    s = small("moco", epochs=1)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        runs.append(starting_encoder(s))
        pretrain(runs[-1], noise(), s)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    other = small("moco", epochs=1, seed=1)
    third = starting_encoder(s)
    pretrain(third, noise(), other)
    assert not torch.equal(weights(third), weights(runs[0]))


def test_accumulated_parts_see_the_views_of_the_whole_batch(monkeypatch):
    # A network that treats images one by one takes the same steps, however a batch is cut.
    s = small("supervised", encoder="efficientnet_lite0", batch_size=4, epochs=1)
    losses = []
    for parts in (1, 2):
        encoder = starting_encoder(s)
        for module in encoder.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                monkeypatch.setattr(module, "train", lambda *_, m=module: m)
        encoder.eval()
        history = pretrain(
            encoder, noise(), s, labels=torch.arange(13) % 2, accumulate_grad_batches=parts
        )
        losses.append(history.loss)
    assert len(losses[0]) == 3
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_mocos_keys_follow_once_a_step_in_however_many_parts(monkeypatch):
    moved = []
    monkeypatch.setattr(MoCo, "before_step", lambda self: moved.append(1))
    for parts in (1, 2):
        s = small("moco", eta=0, epochs=1)
        pretrain(starting_encoder(s), noise(), s, accumulate_grad_batches=parts)
    assert len(moved) == 2 * (13 // 4)


def test_a_placebo_moves_running_statistics_only_and_frozen_ones_not_at_all():
    trained = {}
    for name, changes in {
        "baseline": {"eta": 0},
        "placebo": {"spd": "placebo"},
        "still": {"spd": "placebo", "frozen_statistics": True},
    }.items():
        s = small("simsiam", **{"eta": 0.5} | changes)
        encoder = starting_encoder(s)
        pretrain(encoder, noise(), s)
        trained[name] = encoder.state_dict()
    for name, expected in trained["baseline"].items():
        if name.endswith("num_batches_tracked"):
            continue
        assert torch.equal(trained["still"][name], expected)
        same = torch.equal(trained["placebo"][name], expected)
        assert same == ("running" not in name)


def test_frozen_batchnorm_keeps_the_statistics_it_starts_with():
    s = small("simsiam", frozen_batchnorm=True)
    encoder, before = starting_encoder(s), starting_encoder(s).state_dict()
    pretrain(encoder, noise(), s, noise(5, seed=1))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]) == ("running" in name or "tracked" in name)


def test_a_guard_holds_the_stages_where_they_start():
    moved = []
    for guard in (0.0, 10.0):
        s = small("simsiam", guard=guard, frozen_batchnorm=True, weights="imagenet")
        encoder, start = starting_encoder(s), starting_encoder(s)
        images = noise(8, 32).float() / 255
        pretrain(encoder, noise(), s)
        with torch.no_grad():
            pairs = zip(encoder.stages(images), start.stages(images), strict=True)
            moved.append([float((a - b).square().mean() / b.square().mean()) for a, b in pairs])
    assert all(held < 0.5 * free for free, held in list(zip(*moved, strict=True))[1:]), moved


class Epoch(Callback):
    """Keeps the encoder as it is after the first epoch of three steps."""

    def __init__(self):
        self.kept = []

    def on_step(self, training):
        if training.step == 3:
            self.kept.append(copy.deepcopy(training.objective.baseline.encoder))


def test_patience_ends_a_training_and_keeps_the_best_encoder(tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.7, 0.8, 0.6])
    watch = Pretraining._watch
    monkeypatch.setattr(
        Pretraining, "_watch", lambda self, seen: watch(self, seen) | {"spot_auroc": next(scores)}
    )
    s = small("simsiam", epochs=9, patience=2)
    stopped = starting_encoder(s)
    first = Epoch()
    options = {"folder": tmp_path, "callbacks": [first]}
    history = pretrain(stopped, noise(), s, noise(5, seed=1), **options)
    assert history.epoch.iloc[-1] == 3 and history.spot_auroc.max() == 0.9
    again = starting_encoder(s)  # taken up, it has nothing left to do
    pd.testing.assert_frame_equal(
        pretrain(again, noise(), s, noise(5, seed=1), folder=tmp_path), history
    )
    assert torch.equal(weights(stopped), weights(first.kept[0]))
    assert torch.equal(weights(again), weights(stopped))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "plain", "norm"),
    [
        ("resnet18", lambda: torchvision.models.resnet18(), IMAGENET_NORM),
        (
            "efficientnet_lite0",
            lambda: timm.create_model("tf_efficientnet_lite0", num_classes=0),
            HALF_NORM,
        ),
    ],
)
def test_exported_weights_load_into_plain_models(name, plain, norm, tmp_path):
    s = small("simsiam", encoder=name, epochs=1, dataset="path/to/noise", categories=["a"])
    encoder = starting_encoder(s)
    with torch.enable_grad():
        history = pretrain(encoder, noise(), s)
    path = export(encoder, tmp_path / "encoder.safetensors")
    model = plain().eval()
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    assert set(missing) <= {"fc.weight", "fc.bias"} and not unexpected
    if name == "resnet18":
        model.fc = torch.nn.Identity()
    images = noise(3, 64).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in norm)
    torch.testing.assert_close(model((images - mean) / std), encoder(images))

    about = read_provenance(path)
    assert about["encoder"] == name and about["method"] == "simsiam" and about["eta"] == 0.5
    assert about["dataset"] == "noise" and about["categories"] == ["a"]
    assert about["images"] == 13 and about["steps"] == len(history)
    assert about["digest"] == Images(noise()).digest() != Images(noise(seed=1)).digest()
    assert about["versions"]["torch"] == torch.__version__.split("+")[0]
    again = load_encoder(name, path)
    pretrain(again, noise(), s)
    assert again.provenance["started_from"] == about


def test_a_broken_training_says_which_step_term_and_batch():
    s = small("simsiam")
    encoder = starting_encoder(s)
    with torch.no_grad():
        encoder.network.conv_stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"step 1: baseline is nan \(epoch 1, batch 1 of 3"
    ):
        pretrain(encoder, noise(), s)


def test_collapse_is_said_once(capsys):
    # All images are one image: whatever is learned, they are one point.
    s = small("simsiam", 0.0)
    history = pretrain(
        starting_encoder(s), noise(), s, held_out=noise(1).expand(16, -1, -1, -1).contiguous()
    )
    assert "collapse: all images are nearly one point" in history.attrs["collapse"]
    assert capsys.readouterr().out.count("collapse") == 1


def test_collapsed_projections_are_spoken_of_though_features_are_spread():
    s = small("simsiam", 0.0, epochs=1)
    encoder = starting_encoder(s)
    held_out = noise(16, seed=1)
    training = Pretraining(encoder, s, Images(noise()), torch.zeros(13), held_out)
    linear = [
        m for m in training.objective.baseline.projection.modules() if hasattr(m, "running_var")
    ]
    torch.nn.init.zeros_(linear[-2].weight[1:])  # one unit is left before the last layer
    row = training._watch(training.held_out)
    assert row["effective_rank"] > 2 > row["effective_rank_projected"]
    assert "projections, collapse: " in training.said


def test_a_queue_longer_than_the_images_is_spoken_of():
    with pytest.warns(UserWarning, match=r"queue: 16 keys of 13 images.* A queue of 12 or less"):
        pretrain(starting_encoder(small("moco")), noise(), small("moco", queue=16, epochs=1))


# What is refused, before long work


def test_what_does_not_fit_is_refused(tmp_path):
    encoder, images = load_encoder("efficientnet_lite0"), noise()
    with pytest.raises(ValueError, match="batch_size: 4 is more than the 3 images"):
        pretrain(encoder, images[:3], small())
    with pytest.raises(ValueError, match="labels: supervised pretraining needs at least two"):
        pretrain(encoder, images, small("supervised"))
    with pytest.raises(ValueError, match="labels: 2 for 13 images"):
        pretrain(encoder, images, small("supervised"), labels=[0, 1])
    with pytest.raises(ValueError, match=r"images: torch.float32 .* expected uint8 \(N, 3, H, W\)"):
        pretrain(encoder, images.float(), small())
    with pytest.raises(ValueError, match="max_epochs: decided by the settings"):
        pretrain(encoder, images, small(), max_epochs=3)
    with pytest.raises(ValueError, match=r"batch_size: 4 cannot be shared equally .* 3 parts"):
        pretrain(encoder, images, small("simsiam"), accumulate_grad_batches=3)
    with pytest.raises(ValueError, match="accumulate: simclr compares the images of a batch"):
        pretrain(encoder, images, small(), accumulate_grad_batches=2)
    with pytest.raises(ValueError, match="patience: needs held-out images to watch"):
        pretrain(encoder, images, small(patience=1))
    with pytest.raises(ValueError, match="held_out: one image; at least two are needed"):
        pretrain(encoder, images, small(), held_out=images[:1])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file: cannot be written"):
        pretrain(encoder, images, small(), folder=tmp_path / "file")
    assert not any(tmp_path.glob("*.ckpt"))


def test_a_full_disk_is_reported_before_training(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10_000_000})
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda folder: usage)
    ran = []
    monkeypatch.setattr("spdlib.pretraining.training.fit", lambda *_, **__: ran.append(1))
    with pytest.raises(OSError, match=r"\d+ MB are needed, 10 MB are free on its disk"):
        pretrain(load_encoder("efficientnet_lite0"), noise(), small(), folder=tmp_path)
    assert not ran


def test_checkpoints_of_another_training_are_refused_and_nothing_is_unpickled(tmp_path):
    s = small(epochs=1)
    start = starting_encoder(s)
    pretrain(start, noise(), s, folder=tmp_path)
    with pytest.raises(ValueError, match=r"(?s)another training.*eta: 0\.5 there, 0\.1 here"):
        pretrain(starting_encoder(s), noise(), small(epochs=1, eta=0.1), folder=tmp_path)
    with pytest.raises(ValueError, match=r"(?s)another training.*digest"):
        pretrain(starting_encoder(s), noise(seed=9), s, folder=tmp_path)
    pretrain(starting_encoder(s), noise(seed=9), s, folder=tmp_path, resume=False)

    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "attacked"),))

    torch.save({"state_dict": {}, "spdlib": Attack()}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt is not a checkpoint of a training"):
        pretrain(starting_encoder(s), noise(), s, folder=tmp_path)
    assert not (tmp_path / "attacked").exists()


# Stopping and going on


def child(method, folder, every):
    torch.set_num_threads(1)
    s = small(method, epochs=3)
    pretrain(starting_encoder(s), noise(), s, noise(5, seed=1), folder=folder, every=every)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "every"), [("moco", 1), ("simclr", 3)])
def test_a_killed_training_ends_in_the_weights_of_an_uninterrupted_one(method, every, tmp_path):
    s = small(method, epochs=3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = starting_encoder(s)
    expected = pretrain(whole, noise(), s, noise(5, seed=1))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spdlib.pretraining", "spdlib.datasets"])
    draw, kills = random.Random(0), 0
    for wait in (0.0, *(draw.uniform(0, most) for most in (0.05, 0.2, 0.6, 0.6))):
        process = context.Process(target=child, args=(method, tmp_path, every))
        process.start()
        log, seen = tmp_path / "log.csv", None
        # Let it come to train before it is killed, at a random moment of a step or a write.
        while process.is_alive():
            now = log.stat().st_mtime_ns if log.exists() else None
            if seen is not None and now != seen:
                break
            seen = now or 0
            time.sleep(0.02)
        time.sleep(wait)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 2
    (tmp_path / ".last.ckpt.half").mkdir()  # what a kill in mid-write leaves
    (tmp_path / ".last.ckpt.half" / "last.ckpt").write_bytes(b"PK")
    resumed = starting_encoder(s)
    history = pretrain(resumed, noise(), s, noise(5, seed=1), folder=tmp_path, every=every)
    assert torch.equal(weights(resumed), weights(whole))
    pd.testing.assert_frame_equal(history, expected)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "log.csv"), expected, check_dtype=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "log.csv"]
    # A training that is done is not done again.
    done = starting_encoder(s)
    pd.testing.assert_frame_equal(
        pretrain(done, noise(), s, noise(5, seed=1), folder=tmp_path), expected
    )
    assert torch.equal(weights(done), weights(whole))
    torch.set_num_threads(threads)


@pytest.fixture
def ctrl_c():
    """The handler of a terminal's programs; a shell's background jobs ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_reaches_the_caller_and_the_next_ctrl_c_too(tmp_path, ctrl_c):
    s = small()

    class Stop(Callback):
        def on_step(self, training):
            if training.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    whole, stopped = starting_encoder(s), starting_encoder(s)
    pretrain(whole, noise(), s)
    with pytest.raises(KeyboardInterrupt):
        pretrain(stopped, noise(), s, folder=tmp_path, every=1, callbacks=[Stop()])
    assert signal.getsignal(signal.SIGINT) is ctrl_c and not stopped.training
    resumed = starting_encoder(s)
    pretrain(resumed, noise(), s, folder=tmp_path, every=1)
    assert torch.equal(weights(resumed), weights(whole))


# The command line


ARGUMENTS = [
    "--encoder", "resnet18", "--weights", "random", "--size", "32", "--batch-size", "4",
    "--epochs", "1", "--held-out", "2", "--workers", "1",
]  # fmt: skip


@pytest.mark.slow
def test_the_command_line_trains_on_a_folder(folder, tmp_path, capsys):
    given = ["--dataset", str(folder), "--method", "supervised", "--eta", "0.2", *ARGUMENTS]
    given += ["--stages", "3", "4"]
    out = tmp_path / "out"
    assert main([*given, "--out", str(out)]) == 1
    assert "broken.png: the image does not decode" in capsys.readouterr().err
    assert main([*given, "--out", str(out), "--unreadable", "skip", "--no-resume"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("skipped: ") == 1 and "supervised_spd_eta0.2, 4 steps" in shown
    about = read_provenance(out / "encoder.safetensors")
    assert about["stages"] == [3, 4] and about["skipped"] == 1 and about["eta"] == 0.2
    assert about["dataset"] == "images"
    assert json.loads(json.dumps(about)) == about
    assert len(pd.read_csv(out / "log.csv")) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--eta", "much"], "eta: input should be a valid number"),
        (["--method", "byol"], "method: 'byol' is not one of simsiam"),
        (["--size", "100"], "size: input should be a multiple of 32"),
        (["--dataset", "/no/such/folder"], "'/no/such/folder': neither a known name nor a folder"),
        (["--weights", "nowhere.safetensors", "--epochs", "1"], "no weight file at nowhere"),
        (["--method", "moco", "--queue", "100"], "queue: 100 is no multiple of batch_size"),
    ],
)
def test_the_command_line_says_what_does_not_fit(given, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("spdlib.pretraining.cli.decode", lambda *_: noise(64))
    monkeypatch.setattr("spdlib.pretraining.cli.Images", lambda *_: Images(noise(64)))
    assert main([*given, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# What it is all for


@pytest.mark.slow
def test_some_steps_on_solar_cells_raise_the_spot_the_difference_score_with_spd():
    train, held_out = tables("elpv", 72)
    train = train.iloc[np.linspace(0, len(train) - 1, 192).astype(int)]
    scores = {}
    for eta in (0.0, 1.0):
        s = settings("simsiam", eta=eta)  # fewer or smaller batches leave it to chance
        log = pretrain(starting_encoder(s), train, s, decode(held_out, s.source_size))
        scores[eta] = log.spot_projected.iloc[-1]
    # Where the loss compares; the features follow more slowly.
    assert scores[1.0] > 0.7 and scores[1.0] > scores[0.0] + 0.1
