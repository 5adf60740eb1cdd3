"""Which language model should answer a prompt? One that is good enough for it, and no dearer than that.

Every prompt goes to one of three models, which differ in price and in what they are good at. The reward is the quality
of the answer less what it cost, so the loop learns to send small talk to the small model and proofs to the large one.
The models are simulated, which makes their quality known: the program prints how close the routing comes to the best.

    rankward serve
    export RANKWARD_KEY=$(rankward loop keys playground --show --plain)
    python examples/llm_router.py

In an application, quality is what you can measure: a thumb, an accepted edit, a test that passes, a judge's score.
Report it when it is known, within the loop's reward wait; `playground` waits two seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import time

import msgspec

import rankward


class Model(msgspec.Struct, frozen=True):
    """A simulated language model."""

    cost: float  # of an answer, in units of reward
    latency_s: float  # until it is there
    skills: dict[str, float]  # how good its answers are, from 0 to 1, by the kind of prompt


MODELS = {
    "small": Model(cost=0.02, latency_s=0.3, skills={"chat": 0.85, "code": 0.35, "math": 0.15}),
    "coder": Model(cost=0.10, latency_s=0.8, skills={"chat": 0.70, "code": 0.90, "math": 0.40}),
    "large": Model(cost=0.30, latency_s=2.5, skills={"chat": 0.90, "code": 0.92, "math": 0.95}),
}
KINDS = ("chat", "code", "math")
LATENCY_COST = 0.02  # of a second of waiting, in units of reward
WAVES = 10


def prompt_features(kind: str, chance: random.Random) -> dict[str, object]:
    """Describe a prompt as an application could: by what is cheap to see of it, before any model has read it."""
    return {
        "prompt": {
            "words": {"chat": 12, "code": 60, "math": 35}[kind] + chance.randrange(20),
            "has_code_fence": kind == "code" and chance.random() < 0.9,
            "has_formula": kind == "math" and chance.random() < 0.9,
            "language": chance.choice(("en", "de", "fr")),
        }
    }


def model_features(model: Model) -> dict[str, object]:
    """Describe a model. Its name is a feature already: the id of the action."""
    return {"model": {"cost": model.cost, "latency": model.latency_s}}


def worth(model: Model, kind: str) -> float:
    """The mean reward of a model's answers to a kind of prompt: quality less cost."""
    return model.skills[kind] - model.cost - LATENCY_COST * model.latency_s


def main() -> None:
    """Route prompts in waves, and print what each wave earned against the best and against always the same model."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--endpoint", default=os.environ.get("RANKWARD_ENDPOINT", "http://127.0.0.1:8080"))
    options.add_argument("--key", default=os.environ.get("RANKWARD_KEY"))
    options.add_argument("--prompts", type=int, default=300, help="in each of ten waves", metavar="N")
    options.add_argument("--pause", type=float, default=3.0, help="seconds between waves, for rewards to be learned")
    chosen = options.parse_args()
    if not chosen.key:
        options.error("give the loop's key: --key, or the variable RANKWARD_KEY")
    chance = random.Random(7)
    actions = {name: model_features(model) for name, model in MODELS.items()}
    fixed = {name: sum(worth(model, kind) for kind in KINDS) / len(KINDS) for name, model in MODELS.items()}
    best_fixed = max(fixed, key=lambda name: fixed[name])
    print(f"always {best_fixed}: {fixed[best_fixed]:.3f} for each prompt")
    with rankward.Client(chosen.endpoint, chosen.key, timeout_s=0.25) as client:
        for wave in range(1, WAVES + 1):
            earned = best = 0.0
            for _ in range(chosen.prompts):
                kind = chance.choice(KINDS)
                decision = client.rank(prompt_features(kind, chance), actions)
                expected = worth(MODELS[decision.action_id], kind)
                client.reward(decision.event_id, max(-1.0, min(1.0, chance.gauss(expected, 0.1))))
                earned += expected
                best += max(worth(model, kind) for model in MODELS.values())
            client.flush()
            mean, share = earned / chosen.prompts, earned / best
            print(f"wave {wave:2}: {mean:.3f} for each prompt, {share:.0%} of the best possible")
            if wave < WAVES:
                time.sleep(chosen.pause)
        if client.stats.fallbacks:
            print("fallbacks:", client.stats.fallbacks)


if __name__ == "__main__":
    main()
