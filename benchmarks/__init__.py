"""Comparisons, each side by side in one run: rates differ twofold between runs, ratios do not.

`make bench` runs them. Nothing is asserted here, and no figure in the documentation has another source.
"""
