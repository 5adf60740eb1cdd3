"""What the presets learn, in worlds of known rewards: `make bench-learning` in small.

The bars are well below what is measured there: they fall when something is broken, not when something is tuned.
"""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.learning import Played, Setting, directly, play, play_full_labels, scaled, set_scene, world_scene

from rankward.vw.presets import BALANCED, CHANGING, PERSONALIZER, PLAIN, PRESETS, Preset


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_probabilities_are_the_learners_own(preset: Preset) -> None:
    """A user who knows the learner, or comes with a model, must find nothing changed before the floor."""
    for scene in (world_scene("grocery", 500, seed=1), world_scene("clicks", 500, seed=1, base_rate=0.2)):
        assert directly(scene, Setting.of(preset)) <= 1e-6


@pytest.mark.slow
def test_balanced_learns_digits() -> None:
    """Ten actions and no noise, one pass over 1,797 rows: what full labels reach is far from random."""
    shares = []
    for seed in (1, 2):
        scene = set_scene("digits", seed=seed)
        shares.append(play(scene, Setting.of(BALANCED)).share(play_full_labels(scene).value))

    assert np.mean(shares) > 0.5, shares


@pytest.mark.slow
def test_plain_does_not_mind_how_small_rewards_are() -> None:
    """It is what it is there for: the others explore by the size of rewards."""
    scene = set_scene("digits", seed=1)
    full = play_full_labels(scene).value

    share = play(scaled(scene, 0.05), Setting.of(PLAIN)).share(full * 0.05)

    assert share > 0.5


@pytest.mark.slow
def test_changing_notices_a_change() -> None:
    """It is what it is there for: after the last of three switches, `balanced` has .67 of what can be reached."""
    played = play(world_scene("drift", 12_000, seed=1), Setting.of(CHANGING))

    assert Played(*(part[-3_000:] for part in played)).share() > 0.75


@pytest.mark.slow
@pytest.mark.parametrize(("base_rate", "bar"), [(0.016, 0.55), (0.05, 0.65), (0.2, 0.75)])
def test_balanced_learns_from_clicks(base_rate: float, bar: float) -> None:
    """Rewards are mostly noise, and articles come and go. With the quick rate the last half is worth .44 at 1.6 %."""
    shares = []
    for seed in (1, 2):
        played = play(world_scene("clicks", 12_000, seed=seed, base_rate=base_rate), Setting.of(BALANCED))
        shares.append(Played(*(part[6_000:] for part in played)).share())

    assert np.mean(shares) > bar, shares


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "goal"), [(BALANCED, 0.96), (PERSONALIZER, 0.86)], ids=lambda each: str(each)[:8])
def test_grocery_is_learned_within_5000_events(preset: Preset, goal: float) -> None:
    """It is the first thing that people see, and models are some hundred events old by then."""
    for seed in (1, 2):
        played = play(world_scene("grocery", 5000, seed=seed), Setting.of(preset), every=300, behind=300)
        late_value, late_best = played.value[-1000:].mean(), played.best[-1000:].mean()

        assert late_value > goal * late_best, seed
