"""A page of a grocer, made with FastAPI: which dish leads is decided for each visitor, and learned from clicks.

Start a service (`rankward serve`), then, with `pip install fastapi uvicorn`:

    export RANKWARD_KEY=$(rankward loop keys playground --show --plain)
    uvicorn examples.fastapi_site:app --port 8000

and open http://127.0.0.1:8000. The page comes out whether the service is there or not.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from html import escape
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import HTMLResponse, RedirectResponse

import rankward

DISHES: dict[str, dict[str, Any]] = {
    "pasta": {"dish": {"veg": True, "hot": True, "price": 9.5}},
    "ramen": {"dish": {"veg": False, "hot": True, "price": 12.0}},
    "salad": {"dish": {"veg": True, "hot": False, "price": 7.0}},
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one client for the whole application. As it closes, it sends the rewards that wait."""
    endpoint = os.environ.get("RANKWARD_ENDPOINT", "http://127.0.0.1:8080")
    async with rankward.AsyncClient(endpoint, os.environ["RANKWARD_KEY"], timeout_s=0.05) as client:
        app.state.client = client
        yield


app = FastAPI(title="Grocer", lifespan=lifespan)


@app.get("/")
async def page(request: Request, user_agent: Annotated[str, Header()] = "") -> HTMLResponse:
    """Lead with the dish that this visitor is likeliest to want."""
    client: rankward.AsyncClient = request.app.state.client
    context = {
        "visitor": {"device": "phone" if "Mobile" in user_agent else "desktop"},
        "clock": {"hour": datetime.now(UTC).hour},
    }
    decision = await client.rank(context, DISHES)
    link = f"/dishes/{decision.action_id}?event_id={escape(decision.event_id)}"
    others = "".join(f"<li>{dish}</li>" for dish in DISHES if dish != decision.action_id)
    return HTMLResponse(f'<h1><a href="{link}">{decision.action_id} today</a></h1><ul>{others}</ul>')


@app.get("/dishes/{dish}")
async def clicked(request: Request, dish: str, event_id: str) -> RedirectResponse:
    """A click is a reward. A visitor who does not click is one, too: after the reward wait, of the default, 0."""
    client: rankward.AsyncClient = request.app.state.client
    client.reward(event_id, 1.0)
    return RedirectResponse(f"/?ordered={dish}", status_code=303)


@app.get("/stats")
async def stats(request: Request) -> dict[str, Any]:
    """What became of the calls, for whoever watches the site."""
    client: rankward.AsyncClient = request.app.state.client
    counts = client.stats
    return {name: getattr(counts, name) for name in counts.__struct_fields__}
