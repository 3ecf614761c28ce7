"""Data sets, each a function that returns one table of samples.

A table is a ``pandas.DataFrame`` with the columns of :data:`~spdlib.datasets.samples.COLUMNS`,
one row a sample. A protocol is a function from table to table.
"""

from spdlib.datasets.elpv import elpv
from spdlib.datasets.samples import COLUMNS, SampleImages, loader

__all__ = ["COLUMNS", "SampleImages", "elpv", "loader"]
