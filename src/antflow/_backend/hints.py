"""Recognizes the errors of libraries that work only on the other backend."""

from __future__ import annotations

from .._model.describe import describe_error
from .context import on_asyncio

# By backend, parts of the messages that the other backend's libraries raise there.
_SIGNS = {
    "trio": ("no running event loop", "trio.run received unrecognized yield message"),
    "asyncio": ("must be called from async context", "Task got bad yield: <class 'trio."),
}
_OTHER = {"trio": "asyncio", "asyncio": "trio"}


def add_backend_hint(error: BaseException) -> str | None:
    """
    Add a note to *error* if it comes from a library that does not work on this backend.

    Returns:
        The note, or None if the error has another cause.
    """
    if not isinstance(error, (RuntimeError, TypeError)):
        return None
    backend = "asyncio" if on_asyncio() else "trio"
    text = describe_error(error)
    if not any(sign in text for sign in _SIGNS[backend]):
        return None
    note = (
        f"the task uses something made for {_OTHER[backend]}, and this pipeline runs on {backend}. "
        f"Run it on {_OTHER[backend]}, or use anyio in the task: that works on both."
    )
    # Python 3.10 has no add_note(), but the exceptiongroup package prints this attribute there.
    error.__dict__.setdefault("__notes__", []).append(note)
    return note
