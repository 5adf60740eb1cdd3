"""A grocery site learns which meal to show to whom, within a minute.

It speaks to the service through the unmodified Personalizer client, as an existing application would:

    pip install azure-cognitiveservices-personalizer==0.1.1
    python quickstart.py

The loop is `playground`, whose rewards are learned two seconds after the decision. Its key is read from
RANKWARD_PLAYGROUND_KEY, or from `keys.toml` in the service's data folder.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import tomllib
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.cognitiveservices.personalizer import PersonalizerClient
from azure.cognitiveservices.personalizer.models import RankableAction, RankRequest
from msrest.authentication import CognitiveServicesCredentials
from msrest.exceptions import ClientException

if TYPE_CHECKING:
    from collections.abc import Iterable

CUSTOMERS = {
    "lena": {"name": "lena", "diet": "vegetarian", "household": 1},
    "omar": {"name": "omar", "diet": "anything", "household": 4},
    "priya": {"name": "priya", "diet": "spicy", "household": 2},
}
TIMES = ("morning", "evening")

MEALS = {
    "porridge": {"kind": "breakfast", "main": "oats", "minutes": 10},
    "omelette": {"kind": "breakfast", "main": "eggs", "minutes": 12},
    "lasagne": {"kind": "dinner", "main": "pasta", "minutes": 14},
    "dal": {"kind": "dinner", "main": "lentils", "minutes": 13},
}

# How likely each meal is to be ordered: what the service has to find out.
TASTES = {
    ("lena", "morning"): {"porridge": 0.9, "omelette": 0.3, "lasagne": 0.1, "dal": 0.2},
    ("lena", "evening"): {"porridge": 0.2, "omelette": 0.1, "lasagne": 0.3, "dal": 0.8},
    ("omar", "morning"): {"porridge": 0.2, "omelette": 0.8, "lasagne": 0.3, "dal": 0.0},
    ("omar", "evening"): {"porridge": 0.0, "omelette": 0.2, "lasagne": 0.9, "dal": 0.3},
    ("priya", "morning"): {"porridge": 0.2, "omelette": 0.8, "lasagne": 0.0, "dal": 0.3},
    ("priya", "evening"): {"porridge": 0.1, "omelette": 0.2, "lasagne": 0.2, "dal": 0.9},
}
WATCHED = ("omar", "evening")  # whose probabilities are printed

REPORT_EVERY_S = 2.0
RECENT = 200  # events that the printed average is over


def main() -> None:
    """Send traffic until the time is over, and print what the service has learned so far."""
    options = parse_options()
    credentials = CognitiveServicesCredentials(find_key())
    client: Any = PersonalizerClient(options.endpoint, credentials)  # type: ignore[no-untyped-call]

    chance = average(average(tastes.values()) for tastes in TASTES.values())
    best = average(max(tastes.values()) for tastes in TASTES.values())
    print(f"A random choice is ordered {chance:.0%} of the time, the best one {best:.0%}.\n")
    print(f"{'':>6} {'':>7} {'ordered,':>9}   probabilities for {WATCHED[0]} in the {WATCHED[1]}")
    print(f"{'second':>6} {'events':>7} {f'last {RECENT}':>9}   " + " ".join(f"{meal:>9}" for meal in MEALS))

    rng = random.Random(options.seed)
    actions = [RankableAction(id=meal, features=[{"meal": features}]) for meal, features in MEALS.items()]
    recent: deque[float] = deque(maxlen=RECENT)
    probabilities: dict[str, float] = {}
    events = 0
    start = time.monotonic()
    next_report = start + REPORT_EVERY_S

    while (now := time.monotonic()) < start + options.seconds:
        customer, part_of_day = rng.choice(list(CUSTOMERS)), rng.choice(TIMES)

        # 1. Rank: which of these meals, for this customer, now?
        response = client.rank(
            RankRequest(
                context_features=[{"customer": CUSTOMERS[customer]}, {"time": {"part_of_day": part_of_day}}],
                actions=actions,
            )
        )

        # 2. Show response.reward_action_id to the customer, and see what happens.
        ordered = rng.random() < TASTES[customer, part_of_day][response.reward_action_id]

        # 3. Reward: tell the service how it went.
        client.events.reward(event_id=response.event_id, value=1.0 if ordered else 0.0)

        events += 1
        recent.append(float(ordered))
        if (customer, part_of_day) == WATCHED:
            probabilities = {action.id: action.probability for action in response.ranking}
        if now >= next_report:
            report(now - start, events, average(recent), probabilities)
            next_report += REPORT_EVERY_S
        time.sleep(max(0.0, start + events / options.rate - time.monotonic()))

    print(f"\n{events} events. Of the last {len(recent)} meals shown, {average(recent):.0%} were ordered.")


def report(second: float, events: int, ordered: float, probabilities: dict[str, float]) -> None:
    """Print one line: how far we are, how well it goes, and what the service would do."""
    columns = (f"{probabilities[meal]:9.3f}" if meal in probabilities else " " * 9 for meal in MEALS)
    print(f"{second:6.0f} {events:7} {ordered:9.0%}   " + " ".join(columns), flush=True)


def average(values: Iterable[float]) -> float:
    """Return the mean of the values, 0 if there are none."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def find_key() -> str:
    """Return a key of the loop `playground`.

    Raises:
        SystemExit: there is none to be found.
    """
    if key := os.environ.get("RANKWARD_PLAYGROUND_KEY"):
        return key
    folders = [Path(folder) for folder in (os.environ.get("RANKWARD_DATA"), "data") if folder]
    for folder in folders:
        file = folder / "keys.toml"
        if file.exists():
            loops = tomllib.loads(file.read_text(encoding="utf-8")).get("loops", {})
            if key := loops.get("playground", {}).get("key1"):
                return str(key)
    looked = ", ".join(str(folder.resolve()) for folder in folders)
    raise SystemExit(
        "no key for the loop `playground`: set RANKWARD_PLAYGROUND_KEY, or RANKWARD_DATA to the service's "
        f"data folder (looked for keys.toml in {looked})"
    )


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="A grocery site that learns which meal to show to whom.")
    parser.add_argument("--endpoint", default="http://127.0.0.1:8080", help="of the service (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="how long to run (%(default)s)")
    parser.add_argument("--rate", type=float, default=50, help="events a second, at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of customers and orders (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except ClientException as error:
        sys.exit(f"the service did not take the call: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
