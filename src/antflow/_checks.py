"""Checks of arguments, each with a message that says what came in and what to write instead."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ._errors import StageValidationError


def show(value: object) -> str:
    """Return *value* as a message shows it: its repr, cut, with its type."""
    try:
        text = repr(value)
    except Exception:
        text = "<a value whose repr() raises>"
    if len(text) > 80:
        text = f"{text[:77]}…"
    return f"{text} ({type(value).__name__})"


def refuse(
    owner: str, argument: str, bound: str, value: object, hint: str | None = None
) -> NoReturn:
    """Raise the error for an *argument* of *owner* that is not *bound*."""
    message = f"{owner}: {argument} must be {bound}, got {show(value)}."
    raise StageValidationError(message if hint is None else f"{message} {hint}")


def check_whole(
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
        refuse(owner, argument, bound, value, hint)
    if value < at_least:
        refuse(owner, argument, bound, value)


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
        refuse(owner, argument, bound, value, hint)
    if math.isnan(value) or (math.isinf(value) and not infinite):
        refuse(owner, argument, f"a finite number {bound[9:]}", value, hint)
    if value < at_least or (above and value == at_least):
        refuse(owner, argument, bound, value, hint)
