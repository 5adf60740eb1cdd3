"""The reference handler: what a team writes in an afternoon with FastAPI and one Vowpal Wabbit workspace.

It decides and logs nothing. Run as a program with a listening socket's descriptor, the learner's arguments and
a model file, it serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import threading
import uuid
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from vowpalwabbit import Workspace


class OfferedAction(BaseModel):
    """An action of a request."""

    id: str
    features: list[dict[str, Any]]


class RankBody(BaseModel):
    """Body of Rank."""

    context_features: list[dict[str, Any]] = Field(alias="contextFeatures")
    actions: list[OfferedAction]


def make_app(workspace: Workspace) -> FastAPI:
    """Make the application."""
    app = FastAPI()
    rng = random.Random()

    @app.post("/rank", status_code=201)
    async def rank(body: RankBody) -> dict[str, Any]:
        """Parse, predict, finish; draw."""
        actions = [
            {"_tag": action.id, "i": {"constant": 1, "id": action.id}, "j": action.features} for action in body.actions
        ]
        examples = workspace.parse(json.dumps({"FromUrl": body.context_features, "_multi": actions}))
        pmf = workspace.predict(examples)
        workspace.finish_example(examples)
        [chosen] = rng.choices(range(len(pmf)), pmf)
        return {
            "ranking": [
                {"id": action.id, "probability": probability}
                for action, probability in zip(body.actions, pmf, strict=True)
            ],
            "eventId": str(uuid.uuid4()),
            "rewardActionId": body.actions[chosen].id,
        }

    return app


def main(descriptor: str, arguments: str, model: str) -> None:
    """Serve."""
    app = make_app(Workspace(f"{arguments} --json --quiet -i {model}"))
    server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning"))

    def watch() -> None:
        while os.read(0, 1):
            pass
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[socket.socket(fileno=int(descriptor))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
