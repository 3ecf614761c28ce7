"""Does SPD help after longer trainings? On a GPU; docs/study.md, section 6, says what.

    python studies/longer.py run -j 8 --screw DIR --deeppcb DIR --tiny-imagenet DIR
    python studies/longer.py report

Each cell's rows are added to data/results/study_longer.csv as it ends; what is there is not made
again. ``--check`` makes it again and prints what differs: a GPU adds in no fixed order.
"""

import argparse
import sys
import time
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import does_spd_help as study
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from spdlib.datasets.samples import read_image
from spdlib.encoders import Encoder
from spdlib.pretraining import export, pretrain, starting_encoder
from spdlib.pretraining.presets import settings

CSV = study.CSV.with_name("study_longer.csv")
PER_CLASS = 40  # photographs, the first ones by name
CELLS = {"encoder": "efficientnet_lite0", "weights": "imagenet", "size": 96, "batch_size": 64,
         "epochs": 40}  # fmt: skip
PHOTOS = {"encoder": "resnet18", "weights": "random", "size": 64, "batch_size": 256, "epochs": 30}
# Settings beside the published ones of SimSiam.
ARMS = {
    "cells": CELLS | {"eta": 0.0},
    "cells_spd": CELLS | {"eta": 1.0},
    "cells_spd_0.1": CELLS | {"eta": 0.1},
    "photos": PHOTOS | {"eta": 0.0},
    "photos_spd": PHOTOS | {"eta": 0.1},
    "photos_spd_1": PHOTOS | {"eta": 1.0},
}
CLAIMED = (("cells_spd", "cells"), ("photos_spd", "photos"))
EXPLORED = (("cells_spd_0.1", "cells"), ("photos_spd_1", "photos"))
STARTED = (("cells", "imagenet"), ("cells_spd", "imagenet"), ("cells_spd_0.1", "imagenet"),
           ("photos", "random"), ("photos_spd", "random"), ("photos_spd_1", "random"))  # fmt: skip
# The order of the runs: where time ends decides what is left out.
GROUPS = (
    (("cells", "cells_spd", "photos", "photos_spd"), (0, 1, 2)),
    (("cells", "cells_spd"), (3, 4)),
    (("cells_spd_0.1", "photos_spd_1"), (0, 1, 2)),
    (("photos", "photos_spd"), (3, 4)),
)


def cells() -> list[tuple[str, int]]:
    """Arm and seed of all that is run, in the order in which it is."""
    return [(arm, seed) for arms, seeds in GROUPS for seed in seeds for arm in arms]


def trained(arm: str, seed: int, folder: str) -> Encoder:
    """An arm's encoder, trained on a GPU."""
    how = settings("simsiam", "paper", seed=seed, **ARMS[arm])
    encoder = starting_encoder(how)
    own = how.weights == "imagenet"
    images = study.cells_of(how.source_size) if own else photographs(folder, how.source_size)
    pretrain(encoder, images, how, accelerator="gpu", precision="bf16-mixed")
    return encoder.cpu().eval()


@lru_cache
def photographs(folder: str, size: int) -> Tensor:
    """The first photographs of each class of Tiny ImageNet, uint8."""
    classes = defaultdict(list)
    for path in study.photographs_in(folder):
        classes[Path(path).parent].append(path)
    files = [path for found in classes.values() for path in found[:PER_CLASS]]
    return torch.stack([resize(read_image(file), [size, size], antialias=True) for file in files])


def cell(arm: str, seed: int, options: argparse.Namespace) -> list[dict]:
    """Trains and measures one arm with one seed; its rows."""
    if study.late(options):
        return []
    torch.set_num_threads(1)
    began = time.process_time()
    encoder = trained(arm, seed, options.tiny_imagenet)
    if options.keep:
        export(encoder, Path(options.keep) / f"{arm}_{seed}.safetensors")
    about = {"part": "test", "arm": arm, "seed": seed, "machine": torch.cuda.get_device_name()}
    return study.described(study.measured(encoder, "test", options), encoder, about, began)


def run(options: argparse.Namespace) -> int:
    """Makes what is asked for and not there yet."""
    wanted = study.asked(cells(), study.read(CSV), options)
    if not options.tiny_imagenet:
        wanted = [one for one in wanted if not one[0].startswith("photos")]
        print("without --tiny-imagenet: no training from random weights")
    wrong = 0
    for rows in study.made(wanted, cell, options):
        wrong += study.compare(rows, CSV) if options.check else study.add(rows, CSV)
    return wrong


def main() -> int:
    """The command."""
    options = study.parser(__doc__, list(ARMS)).parse_args()
    if options.command == "run":
        return run(options)
    import report

    return report.write()


if __name__ == "__main__":
    sys.exit(bool(main()))
