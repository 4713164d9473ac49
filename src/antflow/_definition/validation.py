"""Checks of arguments, each with a message that says what came in and what to write instead."""

from __future__ import annotations

import inspect
import math
from typing import Any, NoReturn

from .._model.errors import StageValidationError, short_repr


def reject_argument(
    owner: str, argument: str, bound: str, value: object, hint: str | None = None
) -> NoReturn:
    """Raise the error for an *argument* of *owner* that is not *bound*."""
    message = (
        f"{owner}: {argument} must be {bound}, got {short_repr(value)} ({type(value).__name__})."
    )
    raise StageValidationError(message if hint is None else f"{message} {hint}")


def check_int(
    owner: str, argument: str, value: Any, *, at_least: int, infinite: bool = False
) -> None:
    """Refuse *value* unless it is an int, no bool, of at least *at_least*."""
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
    """Refuse *value* unless it is a number, no bool, of at least (or above) *at_least*."""
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
    """Refuse *value* unless it is True or False."""
    if not isinstance(value, bool):
        reject_argument(owner, argument, "True or False", value)


def check_signature(owner: str, argument: str, function: Any, *names: str) -> None:
    """Refuse *function* unless it can be called with as many arguments as there are *names*."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C do not tell
        return
    try:
        signature.bind(*names)
    except TypeError:
        bound = f"a function that can be called with ({', '.join(names)})"
        reject_argument(owner, argument, bound, function, f"Its signature is {signature}.")


def check_callback(owner: str, argument: str, callback: Any, *names: str) -> None:
    """Refuse *callback* unless it is None or a function of *names*, and no generator function."""
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
        hint = "There is a yield in it, so that calling it would do nothing."
        reject_argument(owner, argument, "a function that is no generator function", callback, hint)
    check_signature(owner, argument, callback, *names)
