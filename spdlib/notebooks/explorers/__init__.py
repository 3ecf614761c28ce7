"""Explorers: sliders and menus around the figures, one module a notebook."""
