"""Notebooks that tests write, and the browser that they are opened in."""

import shutil

import nbformat

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")


def write_notebook(path, *sources, parameters=None):
    """Writes a notebook of these cells, after a ``parameters`` cell if there is one."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if parameters is not None:
        metadata = {"tags": ["parameters"]}
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata=metadata))
    nb = nbformat.v4.new_notebook(cells=cells)
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "3", "language": "python"}
    nbformat.write(nb, path)
    return path
