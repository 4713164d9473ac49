"""Recognizes what a library says that was made for the other backend."""

from __future__ import annotations

from anyio import get_cancelled_exc_class

from .._model.errors import describe_error

# What is raised when asyncio is used under trio, and the other way round.
_SIGNS = {
    "trio": ("no running event loop", "trio.run received unrecognized yield message"),
    "asyncio": ("must be called from async context", "Task got bad yield: <class 'trio."),
}
_OTHER = {"trio": "asyncio", "asyncio": "trio"}


def add_backend_hint(error: BaseException) -> str | None:
    """
    Add a note to *error* if a library raised it that does not work on this backend.

    Returns:
        The note, or None if it is an error like any other.
    """
    if not isinstance(error, (RuntimeError, TypeError)):
        return None
    backend = get_cancelled_exc_class().__module__.partition(".")[0]
    text = describe_error(error)
    if not any(sign in text for sign in _SIGNS[backend]):
        return None
    note = (
        f"the task uses something made for {_OTHER[backend]}, and this pipeline runs on {backend}. "
        f"Run it on {_OTHER[backend]}, or use anyio in the task: that works on both."
    )
    # Python 3.10 has no add_note(), but what prints exception groups there knows the attribute.
    error.__dict__.setdefault("__notes__", []).append(note)
    return note
