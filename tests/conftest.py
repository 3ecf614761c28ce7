"""Before a test imports torch: how many threads it may have, and (spdlib) how they wait."""

import os

# Tests that run beside each other share the cores, and so do the processes that they start.
if (beside := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))

import spdlib  # noqa: F401

# Files that take longest, which begin first: no worker is to end long after the others.
LONGEST = ("test_browser", "test_readme", "test_pretraining", "test_notebook_runs")


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
