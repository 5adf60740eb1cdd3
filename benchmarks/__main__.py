"""What the service costs, measured against its budgets: `python -m benchmarks [ROW…] [--quick]`, or `make bench`.

Every ratio is of figures taken in turn within one run, so that a slow or busy machine slows both. Nothing is
asserted: read the table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

from benchmarks import binning, cluster, explaining, pages, pipeline, ranking, slots, storage, watching
from benchmarks.report import Row, describe_machine, say, show

GROUPS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "generator": ranking.generator,
    "rank": ranking.throughput,
    "core": ranking.one_core,
    "explain": explaining.explaining,
    "bins": binning.binning,
    "slots": slots.slots,
    "swap": ranking.swaps,
    "open": ranking.open_loop,
    "stages": pipeline.stages,
    "import": pipeline.imports,
    "fresh": pipeline.freshness,
    "figures": watching.figures,
    "cluster": cluster.cluster,
    "pages": pages.pages,
    "restart": storage.restart,
    "size": storage.size,
    "large": storage.large,
    "pages-large": pages.pages_of_ten_million,
}
ON_REQUEST = ("large", "pages-large")
"""Rows that take long, and are left out when none is named."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the service against its budgets."
    )
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help=f"which to measure: {', '.join(GROUPS)}; without any, all but {' and '.join(ON_REQUEST)}",
    )
    parser.add_argument("--quick", action="store_true", help="shorter and rougher: about two minutes")
    parser.add_argument("--large", action="store_true", help="also with a log of a million events: minutes more")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(GROUPS)
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}: one of {', '.join(GROUPS)}")
    chosen = arguments.rows or [name for name in GROUPS if name not in ON_REQUEST]
    if arguments.large and "large" not in chosen:
        chosen.append("large")
    print(describe_machine(), flush=True)
    rows = []
    for name in chosen:
        print(f"{name} …", flush=True)
        started = time.monotonic()
        for row in GROUPS[name](arguments.quick):
            say(row)
            rows.append(row)
        print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
    show(rows)


if __name__ == "__main__":
    main()
