"""A log as a table: of a loop in a data folder, or of files, whoever wrote them."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rankward.errors import InvalidRequest
from rankward.history.export import export
from rankward.history.files import log_files
from rankward.history.parquet import TableSink
from rankward.history.sources import open_source
from rankward.joining.reward import RewardDefinition
from rankward.ranking.features import FeatureBounds
from rankward.records import History, JoinedEvent
from rankward.settings import Aggregation, Limits, LoopSettings
from rankward.wiring import Home

if TYPE_CHECKING:
    import pyarrow as pa

_LOOP = "default"


def read_log(
    path: str | os.PathLike[str],
    loop: str | None = None,
    *,
    default_reward: float | None = None,
    reward_aggregation: str | None = None,
) -> pa.Table:
    """Read joined events into a table, one row each; what the columns are, the page on logs says.

    Args:
        path: a data folder; or a file of log lines or Parquet, or a folder of such files.
        loop: of a data folder, the loop's name; None: `default`.
        default_reward: of events without a reward; None: as the loop has it, 0 for files.
        reward_aggregation: how rewards add up, such as `sum`; None: as the loop has it, `earliest` for files.

    Raises:
        NotFound: there is no such file, folder or loop.
        InvalidRequest: a file is damaged. Lines that cannot be used are passed over.
        RankwardError: pyarrow is not installed: pip install "rankward[parquet]".
    """
    root = Path(path)
    if (root / "format").exists():
        return _of_loop(root, loop or _LOOP, default_reward, reward_aggregation)
    if loop is not None:
        raise InvalidRequest(f"{root} is no data folder, so it has no loop {loop!r}: leave the loop out")
    sink = TableSink(_definition(LoopSettings(), default_reward, reward_aggregation))
    wait_us = LoopSettings().reward_wait // timedelta(microseconds=1)
    offset = 0
    for file in log_files([root]):
        source = open_source(file, bounds=FeatureBounds(), limits=Limits(), reward_wait_us=wait_us)
        try:
            while results := source.read():
                events = []
                for result in results:
                    if isinstance(result, History):
                        entry = result.joined(offset, result.time_us)
                        events.append(JoinedEvent(offset, entry, result.interaction))
                    offset += 1
                sink.write(events)
        finally:
            source.close()
    return sink.table()


def _of_loop(root: Path, name: str, default_reward: float | None, reward_aggregation: str | None) -> pa.Table:
    home = Home(root)
    try:
        loop = home.catalog.loop(name)
        sink = TableSink(_definition(loop.settings, default_reward, reward_aggregation))

        async def run() -> None:
            async with home.logs(loop.loop_id) as (log, joined):
                await export(log, joined, sink)

        with ThreadPoolExecutor(1) as pool:  # a notebook has a loop of asyncio's running in its own thread
            pool.submit(lambda: asyncio.run(run())).result()
    finally:
        home.close()
    return sink.table()


def _definition(
    settings: LoopSettings, default_reward: float | None, reward_aggregation: str | None
) -> RewardDefinition:
    try:
        aggregation = settings.reward_aggregation if reward_aggregation is None else Aggregation(reward_aggregation)
    except ValueError as error:
        raise InvalidRequest(
            f"there is no reward aggregation {reward_aggregation!r}: one of {', '.join(Aggregation)}"
        ) from error
    return RewardDefinition(settings.default_reward if default_reward is None else default_reward, aggregation)
