"""How values and exceptions read in messages, and what an exception group consists of."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def leaf_exceptions(error: BaseException) -> list[BaseException]:
    """
    Return the exceptions inside *error*, in order.

    If *error* is a group, these are the exceptions of all its nested groups; else *error* itself.
    """
    leaves: list[BaseException] = []
    # A stack and no recursion: groups may be nested more deeply than Python may recurse.
    pending = [error]
    while pending:
        part = pending.pop()
        if isinstance(part, BaseExceptionGroup):
            pending.extend(reversed(part.exceptions))
        else:
            leaves.append(part)
    return leaves


def short_repr(value: object) -> str:
    """Return the repr of *value*, cut to 80 characters; never raise."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__} whose repr() raises>"
    return text if len(text) <= 80 else f"{text[:77]}…"


def describe_error(error: BaseException) -> str:
    """
    Return the text of *error*; never raise, since ``__str__`` is the user's.

    An exception without a text is named by its type, so that no report has an empty cell.
    """
    try:
        return str(error) or type(error).__name__
    except Exception:
        return f"<{type(error).__name__} whose text cannot be read>"
