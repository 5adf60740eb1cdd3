"""Waits for the servers of a cluster when a node starts: they are often started together."""

from __future__ import annotations

import logging
import time

from rankward.errors import ServersAway
from rankward.store.nats.broker import Broker, BrokerOptions

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0


def await_servers(options: BrokerOptions, *, patience_s: float) -> Broker:
    """Connect as soon as the servers can store something, saying meanwhile what is waited for.

    Args:
        options: where they are.
        patience_s: how long to try; 0: once.

    Raises:
        ServersAway: they do not answer for as long.
        StoreUnavailable: what answers cannot be relied on.
    """
    began_s = time.monotonic()
    while True:
        try:
            return _connect(options)
        except ServersAway as error:
            waited_s = time.monotonic() - began_s
            if waited_s >= patience_s:
                raise ServersAway(f"{error}. They were waited for {waited_s:.0f} s") from error
            logger.warning("%s. They are waited for, %.0f s more", error, patience_s - waited_s)
            time.sleep(_PAUSE_S)


def _connect(options: BrokerOptions) -> Broker:
    broker = Broker(options)
    try:
        broker.call(broker.js.account_info)  # servers accept connections before they have found each other
    except BaseException:
        broker.close()
        raise
    return broker
