"""Data sets, each a function that returns one table of samples.

A table is a ``pandas.DataFrame`` with the columns of :data:`~spdlib.datasets.samples.COLUMNS`,
one row a sample. A protocol is a function from table to table.
"""

from spdlib.datasets.check import check, problems
from spdlib.datasets.defects import painted
from spdlib.datasets.elpv import elpv, elpv_painted
from spdlib.datasets.layouts import folder, mvtec
from spdlib.datasets.registry import load
from spdlib.datasets.samples import COLUMNS, SampleImages, loader
from spdlib.datasets.visa import download_visa, visa
from spdlib.paths import dataset_name
