"""Says what a change of settings or policy does to what was learned."""

from __future__ import annotations

from rankward.settings import SETTINGS, LoopSettings
from rankward.vw.arguments import problem_type_of

_EFFECTS = {
    "reward_wait": "It holds for decisions from now on; each keeps the wait it was decided with.",
    "exploration": "Every model serves with it at once; what was learned stays.",
    "model_export_frequency": "It holds from the next model on.",
    "learning_mode": "It holds for decisions from now on; earlier events are learned as they were logged.",
    "younger_models": "They are begun or let go of within a second, and begin with what is joined from now on.",
    "answer_without_quorum": "It holds for calls from now on. What waits on a node is sent in any case.",
    "numbers": "A new epoch sees them so; the model that serves keeps what it was learned with. With bins, only "
    "rankward's own client can decide with a downloaded model.",
    "log_retention_days": "Older events are removed within a second, once they are joined.",
}


def effect_of(setting: str) -> str:
    """Say what a change of one setting does to what was learned, for people. Empty: nothing."""
    if SETTINGS[setting].retrains:
        return "A new model learns the newest part of the log in the background; the old one serves until then."
    return _EFFECTS.get(setting, "")


def effects(before: LoopSettings, after: LoopSettings, *, retrained: bool) -> list[str]:
    """Say what a change does to what was learned.

    Args:
        before: the settings before it.
        after: the settings after it.
        retrained: whether it starts an epoch.
    """
    changed = [name for name in SETTINGS if getattr(before, name) != getattr(after, name)]
    if not changed:
        return ["Nothing changed: it was set so already."]
    said = [f"{name}: {_EFFECTS[name]}" for name in changed if name in _EFFECTS]
    if retrained:
        until = "the old one serves until it has caught up"
        if problem_type_of(before.policy) is not problem_type_of(after.policy):
            until = "until it has caught up, decisions are uniform, as the old one decides something else"
        said.append(
            f"Model: a new one learns the last {after.model_retrain_days} days of the log in the background; {until}. "
            "`rankward doctor` shows how far it is."
        )
    else:
        said.append("Model: it goes on learning.")
    return said
