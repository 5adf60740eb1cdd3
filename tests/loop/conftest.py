"""The homes that a loop can have: what it promises, it promises in both."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from rankward.store.nats.broker import BrokerOptions, write_options

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["embedded", pytest.param("cluster", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data folder of each kind: an embedded installation's, and that of the only node of a cluster."""
    folder = tmp_path / "data"
    if request.param == "cluster":
        folder.mkdir()
        server = request.getfixturevalue("nats_server")
        options = BrokerOptions(servers=(server.url,), prefix=f"loop-{secrets.token_hex(4)}", node="only")
        write_options(folder / "node.json", options)
    return folder
