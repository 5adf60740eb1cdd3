"""Code to begin with, in the languages that applications are written in: a Rank, and the reward of what was shown.

The code lies in `examples/`. Keys are never in it: each reads `RANKWARD_API_KEY` from the environment.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

_SINGLE = {
    "curl": "curl.txt",
    "Python": "python.txt",
    "Python, the old SDK": "python-sdk.txt",
    "JavaScript": "javascript.txt",
    "C#": "csharp.txt",
    "Java": "java.txt",
    "Go": "go.txt",
}
_SLOTS = {"curl": "curl.txt", "JavaScript": "javascript.txt"}


class Snippet(NamedTuple):
    """Code in one language."""

    language: str
    code: str


def snippets(endpoint: str, *, slots: bool) -> list[Snippet]:
    """Write the code for an endpoint.

    Args:
        endpoint: of the service, as clients are given it: `http://HOST:PORT`, without a slash at its end.
        slots: whether the loop decides for several slots.
    """
    files = _SLOTS if slots else _SINGLE
    return [
        Snippet(language, _read(name, slots=slots).replace("@ENDPOINT@", endpoint)) for language, name in files.items()
    ]


def example(*, slots: bool) -> str:
    """Write a body of Rank, for the form that sends one."""
    return _read("try.json", slots=slots)


def _read(name: str, *, slots: bool) -> str:
    folder = resources.files("rankward.portal") / "examples" / ("slots" if slots else "single")
    return (folder / name).read_text()
