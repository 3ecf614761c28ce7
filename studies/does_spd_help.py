"""Does SPD help? Trains and measures, one arm and seed after the other; docs/study.md says what.

    python studies/does_spd_help.py run -j 2 --screw DIR --deeppcb DIR --tiny-imagenet DIR
    python studies/does_spd_help.py run --arms spd --seeds 0        # one cell
    python studies/does_spd_help.py run --arms spd --seeds 0 --check  # ... made again, compared
    python studies/does_spd_help.py report                          # everything that is computed

Each cell's rows are added to data/results/study.csv as it ends; what is there is not made again.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

import pandas as pd
import testsets
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from spdlib import paths
from spdlib.datasets.samples import read_image
from spdlib.encoders import Encoder, load_encoder
from spdlib.images import decode
from spdlib.pretraining import export, pretrain, starting_encoder
from spdlib.pretraining.presets import Settings, settings

CSV = paths.root() / "data" / "results" / "study.csv"
COLUMNS = ("part", "arm", "seed", "steps", "test", "category", "measure", "value", "low", "high",
           "seconds", "command", "commit", "machine", "date")  # fmt: skip
STEPS, SIZE, BATCH = 24, 96, 16
CHOOSING, SEEDS, MORE = 90, (0, 1, 2), (3, 4)
RATES, DENSE_RATES = (0.2, 0.6), (0.05, 0.15)

NONE = {"eta": 0.0}
SPD = {"eta": 1.0, "spd": "cosine", "frozen_statistics": True, "foreground": "zero"}
DENSE = {"eta": 1.0, "spd": "dense", "frozen_batchnorm": True, "foreground": "image"}
PULL = {"guard": 1.0}
SCRATCH = {"encoder": "resnet18", "weights": "random", "size": 64, "batch_size": 32}
# Settings of each arm beside those all share; None: not trained. "steps" is the study's own.
ARMS: dict[str, dict | None] = {
    "imagenet": None,
    "simsiam": NONE,
    "placebo": SPD | {"spd": "placebo", "frozen_statistics": False},
    "spd": SPD,
    "spd_0.1": SPD | {"eta": 0.1},
    "spd_moving": SPD | {"frozen_statistics": False},
    "mean": SPD | {"foreground": "mean"},
    "image": SPD | {"foreground": "image"},
    "context": SPD | {"foreground": "context"},
    "cutpaste": SPD | {"blend": "cutpaste"},
    "simsiam_frozen": NONE | {"frozen_batchnorm": True},
    "dense": DENSE,
    "dense_pull": DENSE | PULL,
    "simsiam_long": NONE | {"steps": 56},
    "moco": NONE | {"method": "moco"},
    "moco_spd": SPD | {"method": "moco"},
    "simclr": NONE | {"method": "simclr"},
    "simclr_spd": SPD | {"method": "simclr"},
    "supervised": NONE | {"method": "supervised"},
    "supervised_ce": SPD | {"method": "supervised", "spd": "cross_entropy"},
    "supervised_cosine": SPD | {"method": "supervised"},
    "random": None,
    "scratch": NONE | SCRATCH | {"steps": 48},
    "scratch_spd": SPD | SCRATCH | {"steps": 48},
    "simsiam_8": NONE | {"steps": 8},
    "spd_8": SPD | {"steps": 8},
    "simsiam_72": NONE | {"steps": 72},
    "spd_72": SPD | {"steps": 72},
}
CLAIMED = ("simsiam", "spd", "simsiam_frozen", "dense_pull")
# The order of the runs: what is finished first carries the claims. Groups are compared inside.
GROUPS = (
    *((("imagenet", "placebo", *CLAIMED), (seed,)) for seed in SEEDS),
    *(((arm,), SEEDS) for arm in ("image", "context", "spd_0.1", "dense", "cutpaste", "mean")),
    (CLAIMED, MORE),
    (("spd_moving",), SEEDS),
    (("random", "scratch", "scratch_spd"), SEEDS),
    (("simsiam_8", "spd_8"), SEEDS),
    (("supervised", "supervised_ce", "supervised_cosine"), SEEDS),
    (("simsiam_72", "spd_72"), SEEDS),
    (("moco", "moco_spd"), SEEDS),
    (("simclr", "simclr_spd"), SEEDS),
    (("simsiam_long",), SEEDS),
)
UNTRAINED = {"imagenet": ("efficientnet_lite0", "imagenet"), "random": ("resnet18", None)}
# What choices are made of: the rates.
CHOICES = {f"simsiam_rate{rate}": NONE | {"base_lr": rate} for rate in RATES}
CHOICES |= {f"spd_rate{rate}": SPD | {"base_lr": rate} for rate in RATES}
CHOICES |= {f"dense_pull_rate{r}": DENSE | PULL | {"base_lr": r} for r in DENSE_RATES}


def cells() -> Iterator[tuple[str, str, int]]:
    """Part, arm and seed of all that is run, in the order in which it is."""
    yield from (("choice", arm, CHOOSING) for arm in CHOICES)
    for arms, seeds in GROUPS:
        for seed in seeds:  # ImageNet's weights are the same whatever it is
            yield from (("test", arm, seed) for arm in arms if arm != "imagenet" or not seed)


def chosen(rows: pd.DataFrame) -> dict[str, float]:
    """Rates of pooled and of dense arms, by the rows of the choices."""
    kept = rows[(rows.part == "choice") & (rows.test == "validation")]
    if missing := sorted(CHOICES.keys() - set(kept.arm)):
        raise ValueError(f"the choices come first: {', '.join(missing)} not run yet")

    def score(measure: str, *arms: str) -> float:
        return kept[kept.arm.isin(arms) & (kept.measure == measure)].value.mean()

    rate = max(RATES, key=lambda r: score(testsets.NEIGHBOURS, f"simsiam_rate{r}", f"spd_rate{r}"))
    dense = max(DENSE_RATES, key=lambda r: score(testsets.PIXELS, f"dense_pull_rate{r}"))
    return {"pooled": rate, "dense": dense}


def plan(arm: str, seed: int, choice: dict[str, float]) -> tuple[Settings, int]:
    """An arm's settings, and how many images it is trained on."""
    own = dict(CHOICES.get(arm) or ARMS[arm])
    dense = own.get("frozen_batchnorm", False)
    given = {"encoder": "efficientnet_lite0", "weights": "imagenet", "size": SIZE, "seed": seed,
             "batch_size": BATCH}  # fmt: skip
    given |= {"base_lr": choice.get("dense" if dense else "pooled")} | own
    steps, method = given.pop("steps", STEPS), given.pop("method", "simsiam")
    if method == "simclr" or given["weights"] == "random":
        del given["base_lr"]  # LARS has another scale; random weights another place to go
    if method == "moco":
        given["queue"] = 128
    most = len(pool()) if given["weights"] == "imagenet" else steps * given["batch_size"]
    epochs = -(-steps * given["batch_size"] // most)
    return settings(method, epochs=epochs, **given), steps * given["batch_size"] // epochs


def trained(arm: str, seed: int, choice: dict[str, float], photographs: str | None) -> Encoder:
    """An arm's encoder."""
    if arm in UNTRAINED:
        torch.manual_seed(seed)
        return load_encoder(*UNTRAINED[arm])
    how, count = plan(arm, seed, choice)
    encoder = starting_encoder(how)
    if how.weights == "random":
        images, labels = natural(photographs, count, how.source_size, seed), None
    else:
        numbers = pool().sample(count, random_state=seed).index
        images = cells_of(how.source_size)[torch.as_tensor(numbers.to_numpy())]
        labels = pool().category.eq("poly").astype(int).to_numpy()[numbers]
    pretrain(encoder, images, how, labels=labels)
    return encoder


@lru_cache
def pool() -> pd.DataFrame:
    """Solar cells that encoders are trained on."""
    return testsets.pool()


@lru_cache
def cells_of(size: int) -> Tensor:
    """Their images, uint8."""
    return decode(pool(), size)


def natural(folder: str, count: int, size: int, seed: int) -> Tensor:
    """Photographs of Tiny ImageNet, uint8."""
    files = pd.Series(photographs_in(folder)).sample(count, random_state=seed)
    return torch.stack([resize(read_image(file), [size, size], antialias=True) for file in files])


@lru_cache
def photographs_in(folder: str) -> list[str]:
    """Its training images."""
    found = sorted(str(path) for path in Path(folder).rglob("train/*/images/*.JPEG"))
    if not found:
        raise FileNotFoundError(f"{folder}: no train/CLASS/images/NAME.JPEG in it")
    return found


def cell(part: str, arm: str, seed: int, options: argparse.Namespace) -> list[dict]:
    """Trains and measures one arm with one seed; its rows."""
    if late(options):
        return []
    torch.set_num_threads(1)
    began = time.process_time()
    choice = {} if part == "choice" else chosen(read())
    encoder = trained(arm, seed, choice, options.tiny_imagenet).eval()
    rows = measured(encoder, part, options)
    if options.keep:
        export(encoder, Path(options.keep) / f"{arm}_{seed}.safetensors")
    about = {"part": part, "arm": arm, "seed": seed, "machine": f"{processor()}, one thread"}
    return described(rows, encoder, about, began)


def late(options: argparse.Namespace) -> bool:
    """Whether no cell is to begin any more."""
    return bool(options.until) and datetime.now().strftime("%H:%M") >= options.until


def measured(encoder: Encoder, part: str, options: argparse.Namespace) -> list[dict]:
    """All measures of an encoder on the test sets that there are."""
    rows: list[dict] = []
    for bench in testsets.benches("elpv", part == "choice"):
        rows += testsets.detected(encoder, bench)
    if part != "choice":
        rows += testsets.spotted(encoder, SIZE)
        for bench in testsets.benches(options.screw) if options.screw else ():
            rows += testsets.detected(encoder, bench)
        rows += testsets.paired(encoder, options.deeppcb) if options.deeppcb else []
    return rows


def described(rows: list[dict], encoder: Encoder, about: dict, began: float) -> list[dict]:
    """The rows with what made them, and how: the command is that of the script that runs."""
    script = f"python studies/{Path(sys.argv[0]).name}"
    about |= {
        "seconds": round(time.process_time() - began), "date": date.today().isoformat(),
        "steps": encoder.provenance.get("steps", 0), "commit": commit(),
        "command": f"{script} run --arms {about['arm']} --seeds {about['seed']}",
    }  # fmt: skip
    return [{"low": None, "high": None} | about | row for row in rows]


@lru_cache
def commit() -> str:
    """The commit that is run; with a plus where the code differs from it."""
    git = ["git", "-C", str(paths.root())]
    head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "spdlib", "studies"])
    return head.stdout.strip() + "+" * bool(changed.returncode)


@lru_cache
def processor() -> str:
    """The kind of processor: sums are rounded differently on another."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def read(path: Path = CSV) -> pd.DataFrame:
    """The rows so far."""
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(COLUMNS))


def add(rows: list[dict], path: Path = CSV) -> int:
    """Appends rows to the file; none of them is wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table[["value", "low", "high"]] = table[["value", "low", "high"]].astype(float).round(6)
    table.to_csv(path, mode="a", index=False, header=not path.is_file())
    return 0


def compare(rows: list[dict], path: Path = CSV) -> int:
    """Holds rows that were made again against the file; returns how many differ."""
    keys = ["arm", "seed", "test", "category", "measure"]
    new = pd.DataFrame(rows)[[*keys, "value"]].round(6)
    both = new.merge(read(path)[[*keys, "value"]], on=keys, suffixes=("_new", ""))
    other = both[both.value_new != both.value]
    print(f"{len(both)} values made again, {len(other)} differ", *([other] if len(other) else []))
    return len(other) + (not len(both))


def run(options: argparse.Namespace) -> int:
    """Makes what is asked for and not there yet."""
    wanted = asked(list(cells()), read(), options)
    if not options.tiny_imagenet:
        wanted = [one for one in wanted if not one[1].startswith("scratch")]
        print("without --tiny-imagenet: no training from random weights")
    # Choices first: the rest depends on them.
    groups = ([one for one in wanted if (one[0] == "choice") == first] for first in (True, False))
    return sum(compare(rows) if options.check else add(rows)
               for group in groups for rows in made(group, cell, options))  # fmt: skip


def asked(planned: list[tuple], there: pd.DataFrame, options: argparse.Namespace) -> list[tuple]:
    """The cells of a plan that the options ask for and that are not there."""
    done = set(zip(there.arm, there.seed, strict=True))
    return [
        (*where, arm, seed) for *where, arm, seed in planned
        if (not options.arms or arm in options.arms)
        and (options.seeds is None or seed in options.seeds)
        and (options.check or (arm, seed) not in done)
    ]  # fmt: skip


def made(wanted: list[tuple], cell: Callable, options: argparse.Namespace) -> Iterator[list[dict]]:
    """The rows of each cell, as it ends."""
    without = [f"without --{n}" for n in ("screw", "deeppcb") if not vars(options)[n]]
    if wanted:
        print(f"{len(wanted)} cells", *without, flush=True)
    with ProcessPoolExecutor(options.jobs) as executor:
        for done in as_completed([executor.submit(cell, *one, options) for one in wanted]):
            if rows := done.result():
                about = (rows[0][key] for key in ("arm", "seed", "seconds"))
                print(datetime.now().strftime("%H:%M:%S"), *about, flush=True)
                yield rows


def main() -> int:
    """The command."""
    options = parser(__doc__, [*CHOICES, *ARMS]).parse_args()
    if options.command == "run":
        return run(options)
    import report

    return report.write()


def parser(text: str, arms: list[str]) -> argparse.ArgumentParser:
    """A parser of the commands ``run`` and ``report``."""
    whole = argparse.ArgumentParser(description=text.partition("\n")[0])
    commands = whole.add_subparsers(dest="command", required=True)
    making = commands.add_parser("run", help="train and measure")
    making.add_argument("--arms", nargs="+", choices=arms, help="by default all")
    making.add_argument("--seeds", nargs="+", type=int, help="by default all")
    making.add_argument("-j", "--jobs", type=int, default=1, help="processes of one thread each")
    making.add_argument("--until", metavar="HH:MM", help="begin no cell after that")
    making.add_argument("--check", action="store_true", help="make again, and compare")
    making.add_argument("--keep", metavar="DIR", help="where encoders are kept")
    making.add_argument("--screw", metavar="DIR", help="a folder as MVTec AD is laid out")
    making.add_argument("--deeppcb", metavar="DIR", help="DeepPCB's PCBData")
    making.add_argument("--tiny-imagenet", metavar="DIR", help="tiny-imagenet-200")
    commands.add_parser("report", help="text, tables and figures from the rows")
    return whole


if __name__ == "__main__":
    sys.exit(bool(main()))
