"""How values and exceptions are shown in messages, and the exceptions inside a group."""

from __future__ import annotations

import sys
from collections.abc import Collection
from itertools import islice

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


def one_line(text: str) -> str:
    """
    Return *text* with escapes in place of the characters that cannot be printed.

    So neither a line break nor a control sequence of the user's can forge a line of a log.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def full_repr(value: object) -> str:
    """Return the repr of *value*; never raise."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__} whose repr() raises>"


def short_repr(value: object, limit: int = 80) -> str:
    """Return the repr of *value* in one line, cut to *limit* characters; never raise."""
    return shorten(full_repr(value), limit)


def first_three(values: Collection[object]) -> str:
    """Return the reprs of the first three of *values*, each cut to 200 characters, and a count."""
    shown = [short_repr(value, 200) for value in islice(values, 3)]
    if len(values) > 3:
        shown.append(f"… and {len(values) - 3} more")
    return f"[{', '.join(shown)}]"


def shorten(text: str, limit: int) -> str:
    """Return *text* in one line, cut to *limit* characters."""
    # Cut first, because a text may be long.
    text = one_line(text[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 3]}…"


def describe_error(error: BaseException) -> str:
    """
    Return the text of *error*; never raise, although ``__str__`` may be the user's.

    For an exception without a text, this is the name of its type.
    """
    try:
        return str(error) or type(error).__name__
    except Exception:
        return f"<{type(error).__name__} whose text cannot be read>"
