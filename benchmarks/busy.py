"""Threads that wait: one process alone, and several that share the same cores.

    python benchmarks/busy.py
    python benchmarks/busy.py --settings "" GOMP_SPINCOUNT=4000 --rounds 5

A small PaDiM run (EfficientNet-Lite0, 32 images of 160 pixels, fit and scored, four times, two
threads) in processes of its own, under different settings of the OpenMP runtime. A waiting thread
of GNU's spins before it sleeps; processes that share cores spin against each other. Prints
seconds of the work alone, imports not counted: the median and the range of the rounds; and how
busy the machine was without us.
"""

import argparse
import os
import statistics
import subprocess
import sys

import psutil

WORK = """
import sys, time
from spdlib.datasets import elpv, loader
from spdlib.encoders import load_encoder
from spdlib.padim import PaDiM
import torch

torch.set_num_threads(int(sys.argv[1]))
cells = elpv("mono")
images = list(loader(cells[cells.label == 0].head(32), size=160, batch_size=8))
encoder = load_encoder("efficientnet_lite0", "imagenet")
started = time.perf_counter()
for _ in range(int(sys.argv[2])):
    PaDiM(encoder).fit(images).score(images)
print(time.perf_counter() - started)
"""
ALL = ("GOMP_SPINCOUNT=400000", "GOMP_SPINCOUNT=10000", "GOMP_SPINCOUNT=3000",
       "GOMP_SPINCOUNT=1000", "OMP_WAIT_POLICY=PASSIVE", "")  # fmt: skip
OF_THE_RUNTIME = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"


def seconds(setting: str, at_once: int, threads: int, times: int) -> list[float]:
    """Seconds of the work in each of several processes that start together."""
    environment = {n: value for n, value in os.environ.items() if n not in OF_THE_RUNTIME}
    environment |= dict([setting.split("=")] if setting else [])
    command = [sys.executable, "-c", WORK, str(threads), str(times)]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(at_once)
    ]
    return [float(process.communicate()[0]) for process in started]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--settings", nargs="+", default=ALL, help="NAME=VALUE; '': spdlib's own")
    parser.add_argument("--at-once", type=int, default=3, metavar="N", help="processes")
    parser.add_argument("--rounds", type=int, default=3, help="in which all settings take turns")
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--times", type=int, default=4, help="that the work is done")
    given = parser.parse_args()
    print(f"{psutil.cpu_percent(2):.0f} % of {psutil.cpu_count()} cores are busy without us")
    alone = {setting: [] for setting in given.settings}
    together = {setting: [] for setting in given.settings}
    for _ in range(given.rounds):
        for setting in given.settings:
            alone[setting] += seconds(setting, 1, given.threads, given.times)
            together[setting] += seconds(setting, given.at_once, given.threads, given.times)
    print(f"{'':<26}{'alone':>20}{f'{given.at_once} at once':>20}")
    for setting in given.settings:
        cells = [
            f"{statistics.median(found):.1f} ({min(found):.1f}-{max(found):.1f})"
            for found in (alone[setting], together[setting])
        ]
        print(f"{setting or 'as spdlib sets it':<26}{cells[0]:>20}{cells[1]:>20}")


if __name__ == "__main__":
    main()
