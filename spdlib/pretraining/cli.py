"""Pretraining from the command line, alone, under torchrun or under SLURM.

python -m spdlib.pretraining --dataset elpv --method simsiam --eta 0.1
python -m spdlib.pretraining --help
"""

import argparse
import os
import subprocess
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from spdlib import paths
from spdlib.datasets import load
from spdlib.distributed import is_first, launched, place
from spdlib.images import MEMORY, Images
from spdlib.paths import show
from spdlib.pretraining import decode, export, pretrain, starting_encoder
from spdlib.pretraining.presets import Settings
from spdlib.pretraining.presets import settings as choose


def tables(
    dataset: str, held_out: int, seed: int = 0, categories: Sequence[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The normal images of a data set: what to train on, and what to watch the training on.

    Args:
        dataset: A name or a folder, as for :func:`spdlib.datasets.load`.
        held_out: Most images to watch; spread evenly over the normal ones of the test split.
        seed: Seed of the split, where the data set has none of its own.
        categories: Names of categories; None for all.

    Returns:
        Two tables of samples without an image in common.

    Raises:
        ValueError: There are no normal images to train on; or as ``load``.
    """
    normal = load(dataset, categories, seed).query("label == 0")
    train, test = (normal[normal.split == part] for part in ("train", "test"))
    if train.empty:
        raise ValueError(f"dataset: {dataset} has no normal images to train on")
    rows = np.linspace(0, len(test) - 1, min(held_out, len(test))).round().astype(int)
    return train, test.iloc[rows]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    changes = {name: given.pop(name) for name in Settings.model_fields}
    method, preset = changes.pop("method") or "simsiam", changes.pop("preset") or "laptop"
    try:
        if given["devices"] * given["num_nodes"] > 1 and not place():
            return _start(given["devices"], sys.argv[1:] if arguments is None else arguments)
        _run(choose(method, preset, **changes), **given)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _start(devices: int, arguments: list[str]) -> int:
    """Runs the same command once for each device of this machine."""
    run = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(devices), "-m"]
    return subprocess.run([sys.executable, "-m", *run, "spdlib.pretraining", *arguments]).returncode


def _run(
    settings: Settings, out: str | None, export_to: str | None, held_out: int, workers: int | None,
    every: int, **options: Any,
) -> None:  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    folder = Path(out) if out else paths.runs(settings.dataset) / "pretraining" / settings.name
    train, watched = tables(settings.dataset, held_out, categories=settings.categories)
    skip = options["skip"] = options.pop("unreadable") == "skip"
    if workers is None:
        workers = max(1, min(8, (os.cpu_count() or 1) // options["devices"]))
    memory = MEMORY / options["devices"]  # every process holds them
    images = Images(train, settings.source_size, False, memory, workers, skip)
    seen = decode(watched, settings.source_size, skip) if len(watched) > 1 else None
    encoder = starting_encoder(settings)
    options |= {"workers": 0 if images.held else workers}
    history = pretrain(encoder, images, settings, seen, None, folder, every=every, **options)
    if is_first():
        path = export(encoder, export_to or folder / "encoder.safetensors")
        print(f"{show(path)}: {settings.name}, {encoder.provenance['steps']} steps; ", end="")
        print(f"log and checkpoint in {show(folder)}")
        spot = history.spot_auroc.dropna()
        if len(spot):
            print(
                f"spot-the-difference AU-ROC {spot.iloc[0]:.3f} before, {spot.iloc[-1]:.3f} after"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spdlib.pretraining",
        description="Pretrains an encoder, with or without SPD. The same command goes on where "
        "a run was stopped.",
    )
    add = parser.add_argument
    add("--out", metavar="FOLDER", help="checkpoint, log, encoder; default: runs/pretraining/NAME")
    add("--export", dest="export_to", metavar="FILE", help="default: OUT/encoder.safetensors")
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help="--no-resume: anew")
    add("--every", type=int, default=200, metavar="STEPS", help="between checkpoints")
    add("--held-out", type=int, default=128, metavar="N", help="images to watch; 0: no watch")
    add("--unreadable", default="stop", choices=("stop", "skip"), help="images that do not decode")
    add("--workers", type=int, metavar="N", help="processes that decode images, per device")
    run = parser.add_argument_group("where it runs")
    run.add_argument("--devices", type=int, default=launched()[0], help="processes a machine")
    run.add_argument("--nodes", dest="num_nodes", type=int, default=launched()[1], help="machines")
    run.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, mps")
    run.add_argument("--precision", help="32-true (default), bf16-mixed, 16-mixed")
    run.add_argument(
        "--accumulate", dest="accumulate_grad_batches", type=int, metavar="N",
        help="parts that a batch is taken in; negatives are compared within a part",
    )  # fmt: skip
    group = parser.add_argument_group("settings (what is not given is the preset's)")
    for name, field in Settings.model_fields.items():
        choices = typing.get_args(field.annotation) if _is_literal(field.annotation) else ()
        text = (field.description or "") + (f" ({', '.join(choices)})" if choices else "")
        several: dict[str, Any] = {"nargs": "+"} if "list[" in str(field.annotation) else {}
        group.add_argument(f"--{name.replace('_', '-')}", metavar="X", help=text, **several)
    return parser


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal
