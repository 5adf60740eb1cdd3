"""Clients that rank and reward without a break, and remember what was acknowledged."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx

from tests.service import KEY_HEADER, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TIMEOUT_S = 8.0
_EVERY_NTH_TWICE = 10


class Traffic:
    """Each client keeps to an address until it fails; then it asks the next one, with the same event id."""

    def __init__(self, urls: Sequence[str], key: str, *, clients: int = 4, pause_s: float = 0.0) -> None:
        """Begin.

        Args:
            urls: addresses of one service, all as good as each other.
            key: of a loop.
            clients: how many.
            pause_s: that each makes between two visits.
        """
        self.ranked: dict[str, str] = {}  # action by event id
        self.sent: Counter[str] = Counter()  # rewards, by event id: each of them may be in the log
        self.rewarded: Counter[str] = Counter()  # those that were acknowledged: each of them must be
        self.refused: Counter[tuple[int, bool]] = Counter()  # by status, and whether it said when to try again
        self.failed = 0  # calls that had no answer
        self.two_answers: list[str] = []  # event ids for which two actions were named
        self._urls = urls
        self._key = key
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(2 * clients)  # for those who ask two at once
        self._threads = [threading.Thread(target=self._visit, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def more(self, count: int) -> None:
        """Wait until so many more decisions were acknowledged."""
        enough = len(self.ranked) + count
        eventually(lambda: len(self.ranked) >= enough, "decisions go on")

    def end(self) -> None:
        """Stop, and wait until no call is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._pool.shutdown()

    def _visit(self, client: int) -> None:
        with contextlib.ExitStack() as stack:
            https = [
                stack.enter_context(
                    httpx.Client(
                        base_url=f"{url}/personalizer/v1.0", headers={KEY_HEADER: self._key}, timeout=_TIMEOUT_S
                    )
                )
                for url in self._urls
            ]
            at = client % len(https)
            for number in itertools.count():
                if self._stop.wait(self._pause_s):
                    return
                at = self._once(
                    https, at, f"c{client}-{number}", f"v{number % 3}", twice=number % _EVERY_NTH_TWICE == 9
                )

    def _once(self, https: Sequence[httpx.Client], at: int, event_id: str, who: str, *, twice: bool) -> int:
        """Rank and reward. Returns the address that answered."""
        actions = [{"id": f"a{k}", "features": [{"dish": {"kind": f"k{k}"}}]} for k in range(3)]
        body = {"eventId": event_id, "contextFeatures": [{"visitor": {"who": who}}], "actions": actions}
        other = self._pool.submit(self._rank, https[(at + 1) % len(https)], event_id, body) if twice else None
        at = self._ask_in_turn(at, lambda each: self._rank(https[each], event_id, body))
        if other is not None:
            other.result()
        if event_id in self.ranked:
            value = float(self.ranked[event_id][1] == who[1])
            at = self._ask_in_turn(at, lambda each: self._reward(https[each], event_id, value))
        return at

    def _ask_in_turn(self, at: int, call: Callable[[int], bool]) -> int:
        """Call one address after another until one acknowledges. Returns which."""
        addresses = [(at + step) % len(self._urls) for step in range(len(self._urls))]
        return next((each for each in addresses if call(each)), at)

    def _rank(self, http: httpx.Client, event_id: str, body: dict[str, Any]) -> bool:
        answer = self._post(http, "/rank", body, status=201)
        if answer is None:
            return False
        chosen: str = answer.json()["rewardActionId"]
        if self.ranked.setdefault(event_id, chosen) != chosen:
            self.two_answers.append(event_id)
        return True

    def _reward(self, http: httpx.Client, event_id: str, value: float) -> bool:
        self.sent[event_id] += 1
        answer = self._post(http, f"/events/{event_id}/reward", {"value": value}, status=204)
        self.rewarded[event_id] += answer is not None
        return answer is not None

    def _post(self, http: httpx.Client, path: str, body: dict[str, Any], *, status: int) -> httpx.Response | None:
        """Call. None: it was not acknowledged."""
        try:
            answer = http.post(path, json=body)
        except httpx.HTTPError:
            self.failed += 1
            self._stop.wait(0.05)
            return None
        if answer.status_code == status:
            return answer
        self.refused[answer.status_code, "retry-after" in answer.headers] += 1
        return None
