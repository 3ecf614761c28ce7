"""A notebook over a grid of parameters: on this machine or on a Dask cluster, and again.

    python -m spdlib.sweep notebooks/03_padim_evaluation.ipynb -g grid.yaml -j 2

``sweeping`` plans, runs and collects, ``grids`` reads and checks parameters, ``executors`` says
where it runs, ``runner`` is one run. Nothing is imported here: a worker needs ``runner`` alone.
"""
