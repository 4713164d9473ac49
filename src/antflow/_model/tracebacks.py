"""Removes the local variables from the traceback of an exception, and keeps the traceback."""

from __future__ import annotations

import inspect
import sys
from contextlib import suppress
from opcode import opmap
from types import FrameType
from typing import Any

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

_CAN_BE_SUSPENDED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_YIELD_VALUE = opmap["YIELD_VALUE"]
# Python 3.10 awaits with another instruction, and stops before it.
_YIELD_FROM = bytes([opmap["YIELD_FROM"]]) if "YIELD_FROM" in opmap else None
# Past the class of an exception, which may define attributes of these names itself.
_of_any: Any = BaseException
_of_group: Any = BaseExceptionGroup
_TRACEBACK = _of_any.__traceback__.__get__
_CAUSE = _of_any.__cause__.__get__
_CONTEXT = _of_any.__context__.__get__
_EXCEPTIONS = _of_group.exceptions.__get__


def clear_frames(error: BaseException) -> None:
    """
    Remove the local variables from all frames that *error* has passed.

    Also from those of its causes, its contexts, and the exceptions inside a group. Frames that are
    executing or suspended are left alone: a generator or coroutine may have caught the exception,
    and go on.
    """
    pending = [error]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        traceback = _TRACEBACK(part)
        while traceback is not None:
            _clear(traceback.tb_frame)
            traceback = traceback.tb_next
        pending.extend(chained for chained in (_CAUSE(part), _CONTEXT(part)) if chained is not None)
        if issubclass(type(part), BaseExceptionGroup):
            pending.extend(_EXCEPTIONS(part))


def _clear(frame: FrameType) -> None:
    # From Python 3.13 on, clear() refuses a suspended frame. Before, it closes the generator.
    if sys.version_info < (3, 13) and _may_be_suspended(frame):  # pragma: no cover - until 3.12
        return
    with suppress(RuntimeError):  # it is executing, or suspended
        frame.clear()


def _may_be_suspended(frame: FrameType) -> bool:  # pragma: no cover - until 3.12
    """
    Return whether *frame* is, or may be, that of a suspended generator or coroutine.

    A suspended frame has no caller and is at a yield. A frame that has ended may look like that,
    too, if the exception was thrown into it: then it keeps its variables. (This is not known
    otherwise: a frame does not tell its generator.)
    """
    code = frame.f_code
    if not code.co_flags & _CAN_BE_SUSPENDED or frame.f_back is not None:
        return False
    instructions, last = code.co_code, frame.f_lasti
    return instructions[last] == _YIELD_VALUE or instructions[last + 2 : last + 3] == _YIELD_FROM
