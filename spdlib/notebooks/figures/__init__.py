"""Figures: functions that take data and return a ``matplotlib.figure.Figure``.

One module a notebook; ``style`` holds what they share.
"""
