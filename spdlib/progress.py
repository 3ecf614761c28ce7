"""One progress bar for a terminal, JupyterLab, an executed notebook and a log.

A widget bar freezes at 0 % in an executed file, a text bar drawn with carriage returns
becomes a hundred lines in its HTML copy and in a log. In a notebook this bar is one display
that is updated in place, so the executed file shows how it ended; in a log it is a line now
and then.
"""

import io
import sys
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import Any, TypeVar

from tqdm.std import tqdm

LOG_SECONDS = 30  # least time between two lines of a log ...
LOG_SHARE = 0.1  # ... and that as a share of the time so far: long work is told more rarely
COUNTS = "{percentage:3.0f}% {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

Item = TypeVar("Item")


class Bar(tqdm):
    """A progress bar to update by hand; :func:`track` is the usual way to get one.

    Args:
        total: Number of units.
        text: Name of the work, e.g. ``"SimSiam + SPD"``.
        unit: Name of a unit, e.g. ``"images"``.
        seconds: Least time between two redraws; a log has its own.
        done: Number of units that an earlier run has done.
    """

    monitor_interval = 0  # no thread that redraws what stands still

    def __init__(
        self, total: int, text: str = "", unit: str = "it", seconds: float = 0.5, done: int = 0
    ):
        self._shown = _display()
        self._is_log = not (self._shown or sys.stderr.isatty())
        super().__init__(
            total=total,
            desc=text,
            unit=f" {unit}",
            initial=done,
            mininterval=LOG_SECONDS if self._is_log else seconds,
            miniters=1,
            ascii=False,
            bar_format="{desc}: " + ("" if self._is_log else "{bar:24}") + COUNTS,
            file=io.StringIO() if self._shown or self._is_log else sys.stderr,
        )

    @property
    def count(self) -> int:
        """Units counted so far."""
        return self.n

    def update(self, n: int = 1, note: str = "") -> None:
        """Counts ``n`` more units; ``note`` is shown at the end of the line."""
        if note:
            self.set_postfix_str(note, refresh=False)
        super().update(n)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draws the bar as it is now; tqdm decides when."""
        if self._shown:
            self._shown.update(_Line(str(self)))
        elif self._is_log:
            print(self, file=sys.stderr, flush=True)
            self.mininterval = max(LOG_SECONDS, LOG_SHARE * self.format_dict["elapsed"])
        else:
            super().display(msg, pos)


def track(
    items: Iterable[Item], text: str = "", unit: str = "it", total: int | None = None
) -> Iterator[Item]:
    """Yields the items and shows how far it is.

    Args:
        items: Items to iterate over.
        text: Text beside the bar.
        unit: Name of what is counted.
        total: Number of items; by default ``len(items)``.

    >>> list(track([1, 2, 3], "counting"))
    [1, 2, 3]
    """
    with Bar(length_hint(items) if total is None else total, text, unit) as bar:
        for item in items:
            yield item
            bar.update()


class _Line(str):
    """Plain text that a notebook shows as it is."""

    __repr__ = str.__str__


def _display() -> Any:
    """A new display of the notebook whose kernel this process is; None without one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if ipython is None or not hasattr(shell, "kernel"):
        return None
    return ipython.display.display(_Line(""), display_id=True)
