"""What one run of automatic optimization makes of Personalizer's default: a part of `make bench-learning`.

Personalizer's own policy serves a set, several passes of it or some 4,000 events; its log is searched, and what the
rules of `optimization.rules` would apply is measured by itself: one pass over the set in other orders, beginning
without a model. A share is as in `benchmarks.learning`.
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import mean

from rich.console import Console
from rich.table import Table

from benchmarks.learning import Setting, noise_free_sets, play_full_labels, set_scene
from benchmarks.searching import EVENTS, PASSES_MAX, START_US, found_setting, share_of
from rankward.optimization.rules import with_report
from rankward.store.optimizations import Optimization, OptimizationState
from rankward.vw.presets import PERSONALIZER

GOAL = 0.68
STRETCH = 0.78
RUN = Optimization(
    optimization_id="bench",
    loop_id="bench",
    created_us=START_US,
    due_us=START_US,
    dry_run=False,
    start_us=0,
    end_us=START_US,
)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure what automatic optimization makes of Personalizer's default.")
    parser.add_argument("--quick", action="store_true", help="one set: about a minute")
    quick = parser.parse_args().quick
    begun_s = time.monotonic()
    table = Table(
        *("set", "events in the log", "default", "after one run", "applied"),
        title="Automatic optimization from Personalizer's default, one run: share of full labels, 3 orders",
    )
    before, after = [], []
    for name, (rows, _) in noise_free_sets().items():
        if quick and name != "iris":
            continue
        report, found = found_setting(name, count=min(PASSES_MAX, math.ceil(EVENTS / len(rows))), seed=1)
        own = Setting.of(PERSONALIZER)
        applies = with_report(RUN, report).state is OptimizationState.APPLYING
        setting = found if applies else own
        scenes = [set_scene(name, seed=seed) for seed in (1, 2, 3)]
        full = [play_full_labels(scene) for scene in scenes]
        before.append(share_of(own, scenes, full))
        after.append(share_of(setting, scenes, full) if applies else before[-1])
        table.add_row(
            name,
            f"{report.counts.judged:,}",
            f"{before[-1]:.3f}",
            f"{after[-1]:.3f}",
            setting.policy if applies else "nothing",
        )
    table.add_section()
    table.add_row("mean", "", f"{mean(before):.3f}", f"{mean(after):.3f}", f"goal {GOAL}, stretch {STRETCH}")
    console = Console(width=200)
    console.print(table)
    console.print(f"{time.monotonic() - begun_s:.0f} s")


if __name__ == "__main__":
    main()
