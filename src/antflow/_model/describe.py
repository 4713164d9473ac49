"""How values and exceptions are shown in messages, and the exceptions inside a group."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def leaf_exceptions(error: BaseException) -> list[BaseException]:
    """
    Return the exceptions inside *error*, in order.

    If *error* is a group, these are the exceptions in it and in its nested groups; else *error*.
    """
    leaves: list[BaseException] = []
    # A stack and no recursion: groups may be nested more deeply than the recursion limit.
    pending = [error]
    while pending:
        part = pending.pop()
        if isinstance(part, BaseExceptionGroup):
            pending.extend(reversed(part.exceptions))
        else:
            leaves.append(part)
    return leaves


def short_repr(value: object) -> str:
    """Return the repr of *value*, cut to at most 80 characters; never raise."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__} whose repr() raises>"
    return text if len(text) <= 80 else f"{text[:77]}…"


def describe_error(error: BaseException) -> str:
    """
    Return the text of *error*; never raise, although ``__str__`` may be the user's.

    For an exception without a text, this is the name of its type.
    """
    try:
        return str(error) or type(error).__name__
    except Exception:
        return f"<{type(error).__name__} whose text cannot be read>"
