"""Administration of a service elsewhere, over HTTP: the same calls as on a data folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from rankward.administration.challengers import ChallengerView
from rankward.administration.events import ToForget
from rankward.administration.imports import ImportView
from rankward.administration.loops import CreatedLoop, KeyView, LoopView, NewKey, NewLoop
from rankward.administration.models import ModelView
from rankward.administration.service import Administration
from rankward.administration.tuning import Changed, PolicyChoice, PolicyView, PresetView
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
    """See `administration.service.Administration`: each method does what that of the same name does, elsewhere."""

    def __init__(self, endpoint: str, key: str) -> None:
        """Prepare.

        Args:
            endpoint: address of the service.
            key: the admin key.
        """
        self._service = _Service(endpoint, key)
        self.loops = RemoteLoops(self._service)
        self.tuning = RemoteTuning(self._service)
        self.earnings = RemoteEarnings(self._service)
        self.challengers = RemoteChallengers(self._service)
        self.models = RemoteModels(self._service)
        self.events = RemoteEvents(self._service)
        self.optimizations = RemoteOptimizations(self._service)
        self.imports = RemoteImports(self._service)

    async def doctor(self, name: str) -> Report:
        """Say what a loop waits for, and why it is not learning."""
        found: Report = await self._service.call("examineLoop", loop=name)
        return found


class RemoteLoops:
    """See `administration.loops.LoopAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def listed(self) -> list[LoopView]:
        """List the loops, by name."""
        found: list[LoopView] = await self._service.call("listLoops")
        return found

    async def show(self, name: str) -> LoopView:
        """Show one loop."""
        found: LoopView = await self._service.call("showLoop", loop=name)
        return found

    async def create(self, wanted: NewLoop) -> CreatedLoop:
        """Add a loop."""
        created: CreatedLoop = await self._service.call("createLoop", wanted)
        return created

    async def delete(self, name: str) -> None:
        """Remove a loop with its log, its models and its keys."""
        await self._service.call("deleteLoop", query={"confirm": name}, loop=name)

    async def keys(self, name: str) -> list[KeyView]:
        """Show the beginnings of a loop's keys."""
        found: list[KeyView] = await self._service.call("listKeys", loop=name)
        return found

    async def regenerate_key(self, name: str, slot: int) -> NewKey:
        """Make a new key."""
        made: NewKey = await self._service.call("regenerateKey", loop=name, slot=str(slot))
        return made


class RemoteTuning:
    """See `administration.tuning.TuningAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def settings(self, name: str) -> dict[str, str]:
        """Show every setting of a loop."""
        found: dict[str, str] = await self._service.call("showSettings", loop=name)
        return found

    async def change_settings(self, name: str, changes: Mapping[str, str]) -> Changed:
        """Change settings, all of them or none."""
        changed: Changed = await self._service.call("changeSettings", dict(changes), loop=name)
        return changed

    async def policy(self, name: str) -> PolicyView:
        """Show a loop's policy."""
        found: PolicyView = await self._service.call("showPolicy", loop=name)
        return found

    async def set_policy(self, name: str, choice: PolicyChoice) -> Changed:
        """Give a loop another policy."""
        changed: Changed = await self._service.call("setPolicy", choice, loop=name)
        return changed

    async def reset_policy(self, name: str) -> Changed:
        """Restore Personalizer's own policy."""
        changed: Changed = await self._service.call("resetPolicyByAdmin", loop=name)
        return changed

    async def presets(self) -> list[PresetView]:
        """List the named policies."""
        found: list[PresetView] = await self._service.call("listPresets")
        return found


class RemoteEarnings:
    """See `administration.earnings.EarningsAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def comparison(self, name: str) -> LiveComparison:
        """Tell whether a loop is better than its baseline and than chance."""
        found: LiveComparison = await self._service.call("showComparison", loop=name)
        return found

    async def apprentice(self, name: str) -> Apprenticeship:
        """Tell how an apprentice does, and what to do."""
        found: Apprenticeship = await self._service.call("showApprentice", loop=name)
        return found

    async def exploration(self, name: str) -> Exploration:
        """Tell what a loop pays for exploring."""
        found: Exploration = await self._service.call("showExploration", loop=name)
        return found


class RemoteChallengers:
    """See `administration.challengers.ChallengerAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def listed(self, name: str) -> list[ChallengerView]:
        """List a loop's challengers with how they stand."""
        found: list[ChallengerView] = await self._service.call("listChallengers", loop=name)
        return found

    async def add(self, name: str, challenger: str, choice: PolicyChoice) -> ChallengerView:
        """Let a policy learn beside the one that serves."""
        added: ChallengerView = await self._service.call("addChallenger", choice, loop=name, challenger=challenger)
        return added

    async def remove(self, name: str, challenger: str) -> None:
        """Remove a challenger with what it has learned."""
        await self._service.call("removeChallenger", loop=name, challenger=challenger)

    async def promote(self, name: str, challenger: str) -> LoopView:
        """Make a challenger's policy, and what it has learned, the loop's own."""
        changed: LoopView = await self._service.call("promoteChallenger", loop=name, challenger=challenger)
        return changed


class RemoteModels:
    """See `administration.models.ModelAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def listed(self, name: str) -> list[ModelView]:
        """List the versions that are kept of a loop's model."""
        found: list[ModelView] = await self._service.call("listModels", loop=name)
        return found

    async def read(self, name: str, model_id: ModelId, *, signed: bool = False) -> bytes:
        """Read a version's bytes."""
        query = {"signed": "true"} if signed else None
        content: bytes = await self._service.call("downloadModel", query=query, loop=name, model=model_id)
        return content

    async def import_model(self, name: str, model: bytes) -> LoopView:
        """Serve a model from elsewhere, by the contract's own operation. The service tries it first."""
        path = f"/loops/{quote(name, safe='')}/personalizer/{P3}/model"
        response = await self._service.send("PUT", path, content=model, timeout_s=_TRIAL_TIMEOUT_S)
        if response.status_code != 204:
            raise refused(self._service.endpoint, response)
        found: LoopView = await self._service.call("showLoop", loop=name)
        return found

    async def roll_back(self, name: str, model_id: ModelId) -> LoopView:
        """Serve a version, and go on learning from it."""
        changed: LoopView = await self._service.call("promoteModel", loop=name, model=model_id)
        return changed

    async def delete(self, name: str) -> LoopView:
        """Forget what a loop has learned."""
        changed: LoopView = await self._service.call("forgetModel", loop=name)
        return changed

    async def compare(self, name: str, first: ModelId, second: ModelId) -> Comparison:
        """Compare what two versions would do."""
        query = {"first": first, "second": second}
        found: Comparison = await self._service.call("compareModels", query=query, loop=name)
        return found


class RemoteEvents:
    """See `administration.events.EventAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def forget(self, name: str, wanted: ToForget) -> Forgotten:
        """Erase events from a loop's logs."""
        done: Forgotten = await self._service.call("forgetEvents", wanted, loop=name)
        return done


class RemoteOptimizations:
    """See `administration.optimizations.OptimizationAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def history(self, name: str) -> OptimizationHistory:
        """Show a loop's optimizations."""
        found: OptimizationHistory = await self._service.call("listOptimizations", loop=name)
        return found

    async def show(self, name: str, optimization_id: str) -> OptimizationView:
        """Show one of them."""
        found: OptimizationView = await self._service.call("showOptimization", loop=name, optimization=optimization_id)
        return found

    async def begin(self, name: str, wanted: NewOptimization) -> OptimizationView:
        """Begin one."""
        begun: OptimizationView = await self._service.call("optimize", wanted, loop=name)
        return begun


class RemoteImports:
    """See `administration.imports.ImportAdministration`."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    async def listed(self, name: str) -> list[ImportView]:
        """List the files that were sent to be imported into a loop."""
        found: list[ImportView] = await self._service.call("listImports", loop=name)
        return found

    async def cancel(self, name: str, key: str) -> None:
        """Let an import be."""
        await self._service.call("cancelImport", loop=name, key=key)


class _Service:
    """A service elsewhere, and how it is spoken with."""

    def __init__(self, endpoint: str, key: str) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._key = key

    async def call(self, name: str, body: Any = None, *, query: Mapping[str, str] | None = None, **path: str) -> Any:
        operation = _BY_NAME[name]
        target = operation.path.format_map({part: quote(value, safe="") for part, value in path.items()})
        content = None if body is None else msgspec.json.encode(body)
        response = await self.send(operation.method, target, content=content, query=query)
        if response.status_code != operation.success:
            raise refused(self.endpoint, response)
        if operation.response is None:
            return None
        if operation.response is bytes:
            return response.content
        try:
            return msgspec.json.decode(response.content, type=operation.response)
        except msgspec.DecodeError as error:
            raise WorldError(f"{self.endpoint} answers in a way that this version does not read: {error}") from error

    async def send(
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
                    self.endpoint + path,
                    params=query,
                    content=content,
                    headers={"Ocp-Apim-Subscription-Key": self._key, "Content-Type": "application/json"},
                )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise WorldError(
                f"no answer from {self.endpoint}: {error or type(error).__name__}. Is `rankward serve` running there?"
            ) from error


Administrator = Administration | RemoteAdministration
"""Whoever administers: a data folder on this machine, or a service."""
