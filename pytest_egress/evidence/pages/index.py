"""The page of a run: its tests, those that failed first, and who asked whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_egress.evidence.pages.filling import write_page
from pytest_egress.traffic.shown import counted

SHOWN_TESTS: Final = 200  # as columns of the table
SHOWN_DESTINATIONS: Final = 1_000  # as its rows

STYLES: Final = ("colours.css", "index.css")
SCRIPTS: Final = ("elements.js", "sweeps.js", "index.js")


def write_index(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    new: Collection[str] = (),
    lock: str = "",
    sweeps: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page of a run.

    Args:
        path: The file to write.
        rows: What is known of each test: `id`, `folder` ("" without a page), `outcome`, `duration`, `attempts`,
            `headline`, `error`, `images`, `unrouted`, and `hosts` as `Destinations.cells` makes them.
        new: The destinations that the lock file does not have, as `https api.stripe.com:443` or `blocked ads.test:443`.
        lock: The name of the lock file; "" where there is none.
        sweeps: The matrix of each test that was swept: `test`, and what `sweep.table.table` makes.
    """
    failed = sum(row["outcome"] == "failed" for row in rows)
    write_page(
        path,
        "index.html",
        title=f"egress: {failed} of {counted(len(rows), 'test')} failed" if failed else "egress",
        styles=STYLES,
        scripts=SCRIPTS,
        run={"rows": list(rows), "lock": lock, "sweeps": list(sweeps), **table_of(rows, new)},
    )


def table_of(rows: Sequence[Mapping[str, Any]], new: Collection[str]) -> dict[str, Any]:
    """The table of destinations and tests: each destination with a cell for each test, by the test's number.

    Of more than 200 tests, those that failed and those with what is new are columns.
    """
    hosts: dict[str, dict[int, Any]] = {}
    for number, row in enumerate(rows):
        for host, cell in row["hosts"].items():
            hosts.setdefault(host, {})[number] = cell
    fresh = {host for host in hosts if is_new(host, new)}
    columns = [number for number, row in enumerate(rows) if row["hosts"]]
    if len(columns) > SHOWN_TESTS:
        columns = [number for number in columns if is_told(rows[number], fresh)][:SHOWN_TESTS]
    listed = sorted(hosts, key=lambda host: (host not in fresh, host.partition(" ")[2], host))
    shown = sorted(listed[:SHOWN_DESTINATIONS], key=lambda host: (host.partition(" ")[2], host))
    return {
        "columns": columns,
        "destinations": len(hosts),
        "new": len(new),
        "reached": [host for host, cells in hosts.items() if any(map(is_reached, cells.values()))],
        "hosts": [{"host": host, "new": host in fresh, "tests": hosts[host]} for host in shown],
    }


def is_new(host: str, new: Collection[str]) -> bool:
    """Whether the lock file does not have a destination, which it lists by its scheme, or as blocked."""
    return host in new or f"blocked {host.partition(' ')[2]}" in new


def is_told(row: Mapping[str, Any], fresh: Collection[str]) -> bool:
    """Whether a test failed, or asked for what is new."""
    return row["outcome"] == "failed" or any(host in fresh for host in row["hosts"])


def is_reached(cell: Mapping[str, Any]) -> bool:
    """Whether a test has reached the real server of a destination."""
    return bool(cell.get("reached")) or cell["worst"] == "passthrough"
