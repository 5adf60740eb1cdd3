"""Options that belong together: declared as one type, and handed to a command as one argument."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def unbundled(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command have arguments that stand for several options each.

    Such an argument is keyword-only, and its type a `NamedTuple` of options with their defaults. On the command line
    they stand where the argument does, and are options like all others.
    """
    hints = get_type_hints(command, include_extras=True)
    bundles = {name: hint for name, hint in hints.items() if isinstance(hint, type) and hasattr(hint, "_fields")}

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name, bundle in bundles.items():
            arguments[name] = bundle(**{field: arguments.pop(field) for field in bundle._fields})
        command(**arguments)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parts = inspect.signature(bundles[name]).parameters.values() if name in bundles else [parameter]
        parameters += [part.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in parts]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
