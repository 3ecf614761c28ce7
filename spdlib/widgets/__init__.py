"""Explorers: sliders and menus around the figures of ``spdlib.plots``, one module a notebook."""
