"""What a search promotes, where the truth is known: `make bench-evaluation` in small.

The bars are well below what is measured there: they fall when something is broken, not when something is tuned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from benchmarks.learning import Setting, play_full_labels, set_scene
from benchmarks.searching import CANDIDATES, GAIN, LOGGING_VALUE, Simulated, found_setting, share_of

from rankward.vw.presets import PERSONALIZER

pytestmark = pytest.mark.slow


def promoted(events: int, best: float, *, logs: int) -> Sequence[float | None]:
    """Search drawn logs among candidates of which one is the best. Returns the values promoted."""
    rng = np.random.default_rng(7)
    others = rng.uniform(LOGGING_VALUE - GAIN, LOGGING_VALUE, (logs, CANDIDATES - 1))
    return [Simulated(events, [best, *each], rng, unlike=0.5).promoted(events) for each in others]


def test_nothing_is_promoted_where_nothing_is_better() -> None:
    """A rule that takes what looks best of twenty applies a worse policy in most searches of short logs."""
    assert sum(value is not None for value in promoted(2_000, LOGGING_VALUE, logs=20)) <= 2


def test_what_is_better_is_found_in_ten_thousand_events() -> None:
    """A gate that lets nothing pass would be safe as well."""
    values = promoted(10_000, LOGGING_VALUE + GAIN, logs=8)
    assert sum(value == LOGGING_VALUE + GAIN for value in values) >= 6


def test_digits_are_learned_with_what_was_found_on_the_log_of_personalizers_default() -> None:
    """From a log alone, which that policy has filled with choices hardly better than chance."""
    report, setting = found_setting("digits", count=2, seed=1)
    assert report.search is not None
    assert report.search.promoted
    scenes = [set_scene("digits", seed=1)]
    full = [play_full_labels(scene) for scene in scenes]
    assert share_of(setting, scenes, full) > share_of(Setting.of(PERSONALIZER), scenes, full) + 0.25
