"""Administration of a service elsewhere, over HTTP: the same calls as on a data folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from rankward.administration import (
    Administration,
    ChallengerView,
    Changed,
    CreatedLoop,
    KeyView,
    LoopView,
    ModelView,
    NewKey,
    NewLoop,
    PolicyChoice,
    PolicyView,
    PresetView,
    ToForget,
)
from rankward.api.admin import ADMIN_OPERATIONS
from rankward.api.operation import P3
from rankward.cli.access import refused
from rankward.doctor.report import Report
from rankward.erasure import Forgotten
from rankward.errors import WorldError
from rankward.optimization.view import NewOptimization, OptimizationHistory, OptimizationView
from rankward.records import ModelId
from rankward.registry.compare import Comparison
from rankward.watching.apprentice import Apprenticeship
from rankward.watching.comparison import LiveComparison
from rankward.watching.exploration import Exploration

_TIMEOUT_S = 30.0
_TRIAL_TIMEOUT_S = 120.0  # a model may be tried for a minute before it is taken in
_BY_NAME = {operation.name: operation for operation in ADMIN_OPERATIONS}


class RemoteAdministration:
    """See `administration.Administration`: each method does what that of the same name does, on the other side."""

    def __init__(self, endpoint: str, key: str) -> None:
        """Prepare.

        Args:
            endpoint: address of the service.
            key: the admin key.
        """
        self._endpoint = endpoint.rstrip("/")
        self._key = key

    async def loops(self) -> list[LoopView]:
        """List the loops, by name."""
        found: list[LoopView] = await self._call("listLoops")
        return found

    async def loop(self, name: str) -> LoopView:
        """Show one loop."""
        found: LoopView = await self._call("showLoop", loop=name)
        return found

    async def create_loop(self, wanted: NewLoop) -> CreatedLoop:
        """Add a loop."""
        created: CreatedLoop = await self._call("createLoop", wanted)
        return created

    async def delete_loop(self, name: str) -> None:
        """Remove a loop with its log, its models and its keys."""
        await self._call("deleteLoop", query={"confirm": name}, loop=name)

    async def keys(self, name: str) -> list[KeyView]:
        """Show the beginnings of a loop's keys."""
        found: list[KeyView] = await self._call("listKeys", loop=name)
        return found

    async def regenerate_key(self, name: str, slot: int) -> NewKey:
        """Make a new key."""
        made: NewKey = await self._call("regenerateKey", loop=name, slot=str(slot))
        return made

    async def settings(self, name: str) -> dict[str, str]:
        """Show every setting of a loop."""
        found: dict[str, str] = await self._call("showSettings", loop=name)
        return found

    async def change_settings(self, name: str, changes: Mapping[str, str]) -> Changed:
        """Change settings, all of them or none."""
        changed: Changed = await self._call("changeSettings", dict(changes), loop=name)
        return changed

    async def policy(self, name: str) -> PolicyView:
        """Show a loop's policy."""
        found: PolicyView = await self._call("showPolicy", loop=name)
        return found

    async def set_policy(self, name: str, choice: PolicyChoice) -> Changed:
        """Give a loop another policy."""
        changed: Changed = await self._call("setPolicy", choice, loop=name)
        return changed

    async def reset_policy(self, name: str) -> Changed:
        """Restore Personalizer's own policy."""
        changed: Changed = await self._call("resetPolicyByAdmin", loop=name)
        return changed

    async def challengers(self, name: str) -> list[ChallengerView]:
        """List a loop's challengers with how they stand."""
        found: list[ChallengerView] = await self._call("listChallengers", loop=name)
        return found

    async def add_challenger(self, name: str, challenger: str, choice: PolicyChoice) -> ChallengerView:
        """Let a policy learn beside the one that serves."""
        added: ChallengerView = await self._call("addChallenger", choice, loop=name, challenger=challenger)
        return added

    async def remove_challenger(self, name: str, challenger: str) -> None:
        """Remove a challenger with what it has learned."""
        await self._call("removeChallenger", loop=name, challenger=challenger)

    async def promote_challenger(self, name: str, challenger: str) -> LoopView:
        """Make a challenger's policy, and what it has learned, the loop's own."""
        changed: LoopView = await self._call("promoteChallenger", loop=name, challenger=challenger)
        return changed

    async def presets(self) -> list[PresetView]:
        """List the named policies."""
        found: list[PresetView] = await self._call("listPresets")
        return found

    async def models(self, name: str) -> list[ModelView]:
        """List the versions that are kept of a loop's model."""
        found: list[ModelView] = await self._call("listModels", loop=name)
        return found

    async def model(self, name: str, model_id: ModelId, *, signed: bool = False) -> bytes:
        """Read a version's bytes."""
        query = {"signed": "true"} if signed else None
        content: bytes = await self._call("downloadModel", query=query, loop=name, model=model_id)
        return content

    async def import_model(self, name: str, model: bytes) -> LoopView:
        """Serve a model from elsewhere, by the contract's own operation. The service tries it first."""
        path = f"/loops/{quote(name, safe='')}/personalizer/{P3}/model"
        response = await self._send("PUT", path, content=model, timeout_s=_TRIAL_TIMEOUT_S)
        if response.status_code != 204:
            raise refused(self._endpoint, response)
        return await self.loop(name)

    async def roll_back(self, name: str, model_id: ModelId) -> LoopView:
        """Serve a version, and go on learning from it."""
        changed: LoopView = await self._call("promoteModel", loop=name, model=model_id)
        return changed

    async def delete_model(self, name: str) -> LoopView:
        """Forget what a loop has learned."""
        changed: LoopView = await self._call("forgetModel", loop=name)
        return changed

    async def compare(self, name: str, first: ModelId, second: ModelId) -> Comparison:
        """Compare what two versions would do."""
        query = {"first": first, "second": second}
        found: Comparison = await self._call("compareModels", query=query, loop=name)
        return found

    async def forget(self, name: str, wanted: ToForget) -> Forgotten:
        """Erase events from a loop's logs."""
        done: Forgotten = await self._call("forgetEvents", wanted, loop=name)
        return done

    async def comparison(self, name: str) -> LiveComparison:
        """Tell whether a loop is better than its baseline and than chance."""
        found: LiveComparison = await self._call("showComparison", loop=name)
        return found

    async def apprentice(self, name: str) -> Apprenticeship:
        """Tell how an apprentice does, and what to do."""
        found: Apprenticeship = await self._call("showApprentice", loop=name)
        return found

    async def exploration(self, name: str) -> Exploration:
        """Tell what a loop pays for exploring."""
        found: Exploration = await self._call("showExploration", loop=name)
        return found

    async def doctor(self, name: str) -> Report:
        """Say what a loop waits for, and why it is not learning."""
        found: Report = await self._call("examineLoop", loop=name)
        return found

    async def optimizations(self, name: str) -> OptimizationHistory:
        """Show a loop's optimizations."""
        found: OptimizationHistory = await self._call("listOptimizations", loop=name)
        return found

    async def optimization(self, name: str, optimization_id: str) -> OptimizationView:
        """Show one of them."""
        found: OptimizationView = await self._call("showOptimization", loop=name, optimization=optimization_id)
        return found

    async def optimize(self, name: str, wanted: NewOptimization) -> OptimizationView:
        """Begin one."""
        begun: OptimizationView = await self._call("optimize", wanted, loop=name)
        return begun

    async def _call(self, name: str, body: Any = None, *, query: Mapping[str, str] | None = None, **path: str) -> Any:
        operation = _BY_NAME[name]
        target = operation.path.format_map({part: quote(value, safe="") for part, value in path.items()})
        content = None if body is None else msgspec.json.encode(body)
        response = await self._send(operation.method, target, content=content, query=query)
        if response.status_code != operation.success:
            raise refused(self._endpoint, response)
        if operation.response is None:
            return None
        if operation.response is bytes:
            return response.content
        try:
            return msgspec.json.decode(response.content, type=operation.response)
        except msgspec.DecodeError as error:
            raise WorldError(f"{self._endpoint} answers in a way that this version does not read: {error}") from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None,
        query: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> httpx.Response:
        try:
            async with httpx.AsyncClient(timeout=timeout_s) as client:
                return await client.request(
                    method,
                    self._endpoint + path,
                    params=query,
                    content=content,
                    headers={"Ocp-Apim-Subscription-Key": self._key, "Content-Type": "application/json"},
                )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise WorldError(
                f"no answer from {self._endpoint}: {error or type(error).__name__}. Is `rankward serve` running there?"
            ) from error


Administrator = Administration | RemoteAdministration
"""Whoever administers: a data folder on this machine, or a service."""
