"""Checks of arguments; each error says what was given and what to write instead."""

from __future__ import annotations

import inspect
import math
from typing import Any, NoReturn

from .._model.describe import short_repr
from .._model.errors import StageValidationError


def reject_argument(
    owner: str, argument: str, bound: str, value: object, hint: str | None = None
) -> NoReturn:
    """
    Raise the error for an argument that is not valid.

    Args:
        owner: What the argument belongs to, such as ``Stage 'Fetch'``.
        argument: The name of the argument.
        bound: What the value must be.
        value: The value that was given.
        hint: What to write instead.

    Raises:
        StageValidationError: Always.
    """
    message = (
        f"{owner}: {argument} must be {bound}, got {short_repr(value)} ({type(value).__name__})."
    )
    raise StageValidationError(message if hint is None else f"{message} {hint}")


def check_int(
    owner: str, argument: str, value: Any, *, at_least: int, infinite: bool = False
) -> None:
    """Reject *value* unless it is an int of at least *at_least*, and not a bool."""
    if infinite and isinstance(value, float) and value == math.inf:
        return
    bound = f"a whole number of at least {at_least}" + (", or math.inf" if infinite else "")
    if type(value) is bool or not isinstance(value, int):
        hint = None
        if isinstance(value, str) and value.strip().isdecimal():
            hint = f"Write {argument}={int(value)}, without the quotes."
        elif isinstance(value, float) and value.is_integer():
            hint = f"Write {argument}={int(value)}."
        reject_argument(owner, argument, bound, value, hint)
    if value < at_least:
        reject_argument(owner, argument, bound, value)


def check_number(
    owner: str,
    argument: str,
    value: Any,
    *,
    at_least: float,
    above: bool = False,
    infinite: bool = False,
    hint: str | None = None,
) -> None:
    """Reject *value* unless it is a number of at least (or *above*) *at_least*, and not a bool."""
    bound = f"a number {'above' if above else 'of at least'} {at_least}"
    if type(value) is bool or not isinstance(value, (int, float)):
        reject_argument(owner, argument, bound, value, hint)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number) or (math.isinf(number) and not (infinite and value == math.inf)):
        reject_argument(owner, argument, f"a finite number {bound[9:]}", value, hint)
    if value < at_least or (above and value == at_least):
        reject_argument(owner, argument, bound, value, hint)


def check_flag(owner: str, argument: str, value: object) -> None:
    """Reject *value* unless it is True or False."""
    if not isinstance(value, bool):
        reject_argument(owner, argument, "True or False", value)


def check_signature(owner: str, argument: str, function: Any, *names: str) -> None:
    """Reject *function* unless it can be called with as many arguments as there are *names*."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return
    try:
        signature.bind(*names)
    except TypeError:
        bound = f"a function that can be called with ({', '.join(names)})"
        reject_argument(owner, argument, bound, function, f"Its signature is {signature}.")


def check_callback(owner: str, argument: str, callback: Any, *names: str) -> None:
    """Reject *callback* unless it is None, or a function of *names* that is not a generator."""
    if callback is None:
        return
    if inspect.iscoroutine(callback):
        name = callback.__name__
        callback.close()
        hint = f"Write {argument}={name}, not {argument}={name}(…)."
        reject_argument(owner, argument, "a function or None", callback, hint)
    if not callable(callback):
        reject_argument(owner, argument, "a function or None", callback)
    if inspect.isgeneratorfunction(callback) or inspect.isasyncgenfunction(callback):
        hint = "It contains a yield, so calling it would do nothing."
        reject_argument(owner, argument, "a function and not a generator", callback, hint)
    check_signature(owner, argument, callback, *names)
