"""One progress bar for a terminal, JupyterLab and an executed notebook.

A widget bar freezes at 0 % in an executed file, a text bar drawn with carriage returns
becomes a hundred lines in its HTML copy. In a notebook this bar is one display that is
updated in place, so the executed file shows how it ended.
"""

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm.std import tqdm

Item = TypeVar("Item")


class Bar:
    """A progress bar to update by hand; :func:`track` is the usual way to get one.

    Args:
        total: How many units there are.
        text: What is being done, e.g. ``"SimSiam + SPD"``.
        unit: What is counted, e.g. ``"images"``.
        seconds: Least time between two redraws.
        done: How many units an earlier run has done.
    """

    def __init__(
        self,
        total: int,
        text: str = "",
        unit: str = "it",
        seconds: float = 0.5,
        done: int = 0,
    ):
        self.total, self.text, self.unit, self.seconds = total, text, unit, seconds
        self.count = self.done = done
        self.note, self.start, self.drawn = "", time.monotonic(), 0.0
        self._display = _display(self._line()) if _in_notebook() else None
        self._tqdm = (
            None
            if self._display
            else tqdm(
                total=total,
                desc=text,
                unit=f" {unit}",
                mininterval=seconds,
                initial=done,
                file=sys.stderr,
            )
        )

    def update(self, count: int = 1, note: str = "") -> None:
        """Counts ``count`` more units; ``note`` is shown at the end of the line."""
        self.count += count
        self.note = note or self.note
        if self._tqdm is not None:
            if note:
                self._tqdm.set_postfix_str(note, refresh=False)
            self._tqdm.update(count)
        elif time.monotonic() - self.drawn > self.seconds:
            self._redraw()

    def close(self) -> None:
        """Draws the bar as it ended."""
        if self._tqdm is not None:
            self._tqdm.close()
        else:
            self._redraw()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _redraw(self) -> None:
        self.drawn = time.monotonic()
        self._display.update(_Line(self._line()))

    def _line(self) -> str:
        spent = time.monotonic() - self.start
        share = self.count / self.total if self.total else 1.0
        filled = round(24 * min(share, 1.0))
        line = f"{self.text:<24} {'█' * filled}{'░' * (24 - filled)} {share:4.0%}"
        line += f"  {self.count:,}/{self.total:,} {self.unit}"
        done = self.count - self.done
        if done:
            line += f"  {done / max(spent, 1e-9):,.0f} {self.unit}/s"
            left = spent * (self.total - self.count) / done
            line += f"  {_clock(left)} left" if self.count < self.total else f"  in {_clock(spent)}"
        return line + (f"  {self.note}" if self.note else "")


def track(
    items: Iterable[Item], text: str = "", unit: str = "it", total: int | None = None
) -> Iterator[Item]:
    """Yields the items and shows how far it is.

    Args:
        items: What to iterate over.
        text: What is being done.
        unit: What is counted.
        total: How many there are; by default ``len(items)``.

    >>> list(track([1, 2, 3], "counting"))
    [1, 2, 3]
    """
    with Bar(len(items) if total is None else total, text, unit) as bar:
        for item in items:
            yield item
            bar.update()


class _Line:
    """Plain text that a notebook shows as it is."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def _display(line: str):
    from IPython.display import display

    return display(_Line(line), display_id=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips, lists of devices and advice on loggers and workers.

    They come with every training, and would stand between the bars of a notebook.
    """
    names = "pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for name in names[:2]:
                warnings.filterwarnings("ignore", module=name)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
