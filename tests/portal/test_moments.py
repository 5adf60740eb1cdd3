"""Moments that are typed into forms, or sent by scripts."""

from __future__ import annotations

import pytest

from rankward.errors import InvalidRequest
from rankward.portal.moments import read_moment, written

SIX_US = 1_769_882_400_000_000  # 2026-01-31 18:00 in UTC


@pytest.mark.parametrize("text", ["2026-01-31T18:00", "2026-01-31T18:00Z", "2026-01-31T19:30+01:30"])
def test_a_moment_is_in_utc_unless_it_says_otherwise(text: str) -> None:
    """An offset that is dropped moves an evaluation by hours without a word."""
    assert read_moment(text, "to begin at") == SIX_US


def test_a_moment_is_written_as_it_is_read() -> None:
    """A form that is opened and sent asks for what it showed."""
    assert written(SIX_US) == "2026-01-31T18:00"


def test_what_is_no_moment_is_refused_in_words() -> None:
    """Whoever typed it has to know which field, and how to write it."""
    with pytest.raises(InvalidRequest, match="'yesterday' is no moment to begin at: write it as"):
        read_moment("yesterday", "to begin at")
