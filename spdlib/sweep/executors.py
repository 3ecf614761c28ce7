"""Where a sweep runs: processes of this machine, a Dask cluster, any executor.

All are executors of ``concurrent.futures``. With each goes how many runs it is given at once,
so that they fit into memory, and how many threads each run may use, so that they do not fight.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil

WAIT_FOR_WORKERS = 120  # seconds
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


Place = tuple[Executor, int, int]


@contextmanager
def executor(on: Any, threads: int | None, memory: float | str | None) -> Iterator[Place]:
    """An executor, how many runs it is given at once (0: all), and the threads of each.

    Args:
        on: A number of processes on this machine, the address of a Dask scheduler or its
            ``Client``, or an executor.
        threads: Of each run; by default the cores divided by the runs at once.
        memory: That a run may need, bytes or ``"6GB"``; None sets no limit.

    Raises:
        ValueError: There is no room for one run, or ``on`` or ``memory`` make no sense.
    """
    memory = _bytes(memory)
    if isinstance(on, str):
        from distributed import Client

        with Client(on) as client, executor(client, threads, memory) as found:
            yield found
    elif hasattr(on, "get_executor"):
        yield _dask(on, threads, memory)
    elif isinstance(on, Executor):
        at_once = _fitting(memory)
        slots = getattr(on, "_max_workers", None) or at_once or 1
        yield on, at_once, threads or max(1, cores() // slots)
    else:
        if on < 1:
            raise ValueError(f"on: {on} processes, at least 1 is needed")
        at_once = min(on, _fitting(memory) or on)
        with ThreadPoolExecutor(at_once) as pool:  # a thread waits for each process
            yield pool, at_once, threads or max(1, cores() // at_once)


def _dask(client: Any, threads: int | None, memory: float) -> Place:
    client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS)
    rooms = client.run(_room)
    slots = Counter()
    for address, count in client.nthreads().items():
        slots[rooms[address]["host"]] += count
    threads = threads or min(max(1, r["cores"] // slots[r["host"]]) for r in rooms.values())
    if not memory:
        return client.get_executor(pure=False), 0, threads
    fitting = [a for a, room in rooms.items() if room["slots"] * memory <= room["memory"]]
    if not fitting:
        raise ValueError(
            f"memory: no worker has {memory / 1e9:.1f} GB for each of its slots; start workers "
            "with --nthreads 1 and a --memory-limit above that"
        )
    return client.get_executor(pure=False, workers=fitting), 0, threads


def _room(dask_worker: Any) -> dict[str, Any]:
    """What a Dask worker has to give; runs there."""
    limit = dask_worker.memory_manager.memory_limit or psutil.virtual_memory().total
    host = socket.gethostname()
    return {"host": host, "cores": cores(), "memory": limit, "slots": dask_worker.state.nthreads}


def _fitting(memory: float) -> int:
    """How many runs of that many bytes fit into what is free here; 0 if nothing was asked."""
    if not memory:
        return 0
    free = psutil.virtual_memory().available
    if memory > free:
        raise ValueError(f"memory: {memory / 1e9:.1f} GB a run, but {free / 1e9:.1f} GB are free")
    return int(free // memory)


def cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _bytes(memory: float | str | None) -> float:
    if not isinstance(memory, str):
        return float(memory or 0)
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)i?b?\s*", memory.lower())
    if not match:
        raise ValueError(f"memory: {memory!r} is not a size such as 6GB")
    return float(match[1]) * UNITS[match[2]]
