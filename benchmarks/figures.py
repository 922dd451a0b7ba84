"""Medians with their spread, as a table. Rounds are interleaved, so that what slows the machine slows all."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(title: str, unit: str, rows: Mapping[str, Sequence[float]]) -> str:
    """Return one line for each row: its median, and the least and greatest value."""
    lines = [f"{title} ({unit}, median of {len(next(iter(rows.values())))} rounds, and the range)"]
    for name, values in rows.items():
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        lines.append(f"  {name:<28}{median(values):>8,.0f}   {spread}")
    return "\n".join(lines)


def ratio(text: str, numerator: Sequence[float], denominator: Sequence[float]) -> str:
    """Return a line with the ratio of two medians."""
    return f"  {text:<28}{median(numerator) / median(denominator):>8.2f}"
