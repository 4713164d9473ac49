"""Reports retries: one line in the log for each, and the hooks of stamina."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from threading import RLock
from typing import Any

from attrs import frozen
from stamina import instrumentation
from stamina.instrumentation import RetryDetails

from .._definition.callables import handler_name
from .._events.event_bus import logger
from .._model.describe import describe_error, one_line, short_repr, shorten

_LOGGING = instrumentation.LoggingOnRetryHook.hook_factory.__module__
_STRUCTLOG = instrumentation.StructlogOnRetryHook.hook_factory.__module__
_PROMETHEUS = instrumentation.PrometheusOnRetryHook.hook_factory.__module__


@frozen(eq=False)
class Retried:
    """
    What is retried.

    Attributes:
        item_id: The id of the item.
        stage: The name of the stage.
        name: The name of the task, or, if the stage is retried, that of the stage.
    """

    item_id: Any
    stage: str
    name: str


def log_retry(retried: Retried, task: str, attempts: int, details: RetryDetails) -> None:
    """
    Log that another attempt is scheduled: one line, and the same as attributes of the log record.

    Args:
        retried: What is retried.
        task: The name of the task that raised.
        attempts: How many attempts may be made in all.
        details: As stamina has them.
    """
    if not logger.isEnabledFor(logging.WARNING):
        return
    error = details.caused_by
    error_type, text = type(error).__name__, describe_error(error)
    item_id = retried.item_id
    # Log formatters write the attributes as they are.
    if issubclass(type(item_id), str):
        item_id = one_line(str.__str__(item_id))
    elif item_id is not None and type(item_id) not in (int, float, bool):
        item_id = short_repr(item_id)
    logger.warning(
        "item %s: task %r of stage %r failed in attempt %d of %d, next attempt in %.3f s: %s",
        short_repr(retried.item_id),
        task,
        retried.stage,
        details.retry_num,
        attempts,
        details.wait_for,
        shorten(f"{error_type}: {text}", 500),
        extra={
            "item_id": item_id,
            "stage": one_line(retried.stage),
            "task": one_line(task),
            "attempt": details.retry_num,
            "attempts": attempts,
            "wait": details.wait_for,
            "error": shorten(text, 500),
            "error_type": one_line(error_type),
        },
    )


def run_hooks(details: RetryDetails) -> ExitStack | None:
    """
    Call the hooks of stamina with *details*.

    Returns:
        What holds the context managers that they returned, to be closed before the next attempt.

    Raises:
        Exception: A hook raised. But if the error that is retried has no repr, which the hooks of
            stamina itself log, that does not prevent the retry.
    """
    hooks = hooks_to_call()
    if not hooks:
        return None
    with ExitStack() as entered:
        for hook in hooks:
            try:
                manager = hook(details)
            except Exception as error:
                if _has_repr(details.caused_by):
                    raise
                logger.error(
                    "the stamina hook %s raised %s, and repr() of the error that is retried raises "
                    "as well; the item is not affected",
                    handler_name(hook),
                    type(error).__name__,
                )
                continue
            if isinstance(manager, AbstractContextManager):
                entered.enter_context(manager)
        return entered.pop_all()


def _has_repr(error: BaseException) -> bool:
    try:
        repr(error)
    except Exception:
        return False
    return True


def _kind(hook: Any) -> str | None:
    """Return the module of a function that a factory of stamina's made; other hooks have others."""
    return getattr(hook, "__module__", None)


def _looks_like_default(hooks: tuple[Any, ...]) -> bool:
    default = [_PROMETHEUS] if _is_installed("prometheus_client") else []
    default.append(_STRUCTLOG if _is_installed("structlog") else _LOGGING)
    return [_kind(hook) for hook in hooks] == default


def _is_installed(name: str) -> bool:
    return sys.modules.get(name) is not None or find_spec(name) is not None


_stamina_config: Any = getattr(sys.modules.get("stamina._config"), "CONFIG", None)
# The hooks of stamina that were seen last, and those of them that are called.
_seen: tuple[Any, Any] = ((), ())
_seen_lock = RLock()


def hooks_to_call() -> tuple[Any, ...]:
    """
    Return the hooks that were set in stamina; of its default ones, those that do not log.

    The default logging hook of stamina is replaced by `log_retry()`. stamina has no public way to
    ask whether its hooks are the default. Its private attribute is None before the default is first
    used. Hooks that were set are there as they were given, as factories, until they are first used;
    after that, the functions that these made are in their place. So if what was set is the same as
    the default, and something else has used it before antflow's first retry, it is taken for the
    default.
    """
    global _seen
    with _seen_lock:
        before = getattr(_stamina_config, "_on_retry", None)
        hooks = instrumentation.get_on_retry_hooks()
        if hooks is not _seen[0]:
            called = hooks
            if before is None or _looks_like_default(before):
                called = tuple(hook for hook in hooks if _kind(hook) not in (_LOGGING, _STRUCTLOG))
            _seen = (hooks, called)
        return _seen[1]  # type: ignore[no-any-return]
