"""The line in the log for each retry, and the hooks of stamina beside it."""

from __future__ import annotations

import importlib.machinery
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import anyio
import pytest
import stamina
from stamina.instrumentation import (
    LoggingOnRetryHook,
    StructlogOnRetryHook,
    get_on_retry_hooks,
    set_on_retry_hooks,
)

from antflow import Pipeline, RetryPolicy, Stage
from antflow._tasks import retries, retry_report

SCOPES = ["task", "stage"]


class Unreliable:
    """Fails so many times for each item."""

    __name__ = "call"

    def __init__(self, times: int = 1, error: Exception | None = None) -> None:
        self.times = times
        self.error = ValueError("lost") if error is None else error
        self.attempts = 0

    async def __call__(self, value: Any) -> Any:
        self.attempts += 1
        if self.attempts <= self.times:
            raise self.error
        return value


async def same(value: Any) -> Any:
    return value


def pipeline(task: Any, scope: Any = "task", wait: float = 0.0, **options: Any) -> Pipeline:
    options.setdefault("attempts", 3)
    policy = RetryPolicy(scope=scope, wait_initial=wait, wait_max=wait, wait_jitter=0, **options)
    return Pipeline([Stage("Fetch", 1, [same, task], retry=policy)])


def lines(caplog: pytest.LogCaptureFixture, name: str = "antflow") -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == name]


class TestLine:
    @pytest.mark.virtual_time
    @pytest.mark.parametrize("scope", SCOPES)
    async def test_names_item_stage_task_attempts_wait_and_error(
        self, scope: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        results = await pipeline(Unreliable(2), scope, 1.5).run([{"id": "page 7", "value": 1}])
        assert results.values == [1]
        first, second = lines(caplog)
        assert first.levelno == logging.WARNING
        assert first.getMessage() == (
            "item 'page 7': task 'call' of stage 'Fetch' failed in attempt 1 of 3, "
            "next attempt in 1.500 s: ValueError: lost"
        )
        assert "attempt 2 of 3" in second.getMessage()
        names = ["item_id", "stage", "task", "attempt", "attempts", "wait", "error", "error_type"]
        assert [getattr(second, name) for name in names] == [
            "page 7",
            "Fetch",
            "call",
            2,
            3,
            1.5,
            "lost",
            "ValueError",
        ]

    @pytest.mark.virtual_time
    async def test_has_the_wait_that_a_hook_chose(self, caplog: pytest.LogCaptureFixture) -> None:
        await pipeline(Unreliable(), on=lambda error: 7.25).run([1])
        (line,) = lines(caplog)
        assert line.wait == 7.25  # type: ignore[attr-defined]

    @pytest.mark.parametrize(("cap", "attempts"), [(False, 5), (True, 3)])
    async def test_has_the_number_of_attempts_of_test_mode(
        self, cap: bool, attempts: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        with stamina.set_testing(True, attempts=5, cap=cap):
            results = await pipeline(Unreliable(99)).run([1])
        assert results.failures[0].attempts == attempts
        assert [line.attempt for line in lines(caplog)] == list(range(1, attempts))  # type: ignore[attr-defined]
        assert {line.attempts for line in lines(caplog)} == {attempts}  # type: ignore[attr-defined]

    async def test_is_not_logged_without_a_retry(self, caplog: pytest.LogCaptureFixture) -> None:
        await pipeline(Unreliable(99), attempts=1).run([1])
        await pipeline(Unreliable(0)).run([1])
        assert lines(caplog) == []

    async def test_costs_nothing_if_the_logger_is_silent(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Id:
            def __repr__(self) -> str:
                raise AssertionError

        with caplog.at_level(logging.ERROR, "antflow"):
            results = await pipeline(Unreliable()).run([{"id": Id(), "value": 1}])
        assert results.values == [1]
        assert lines(caplog) == []

    @pytest.mark.parametrize("scope", SCOPES)
    async def test_cannot_be_forged(self, scope: Any, caplog: pytest.LogCaptureFixture) -> None:
        class Lines:
            def __repr__(self) -> str:
                return "a\nb"

        forged = "x\n2026-01-01 ERROR \x1b[31m\u2028\u202eall is lost"
        for item_id in (forged, Lines(), 7, None, 2.5, ("a\n", 1)):
            task = Unreliable(error=ValueError(forged * 100))
            task.__name__ = forged
            await pipeline(task, scope).run([{"id": item_id, "value": 1}])
        assert len(lines(caplog)) == 6
        for line in lines(caplog):
            texts = [line.getMessage(), line.error, line.stage, line.task]  # type: ignore[attr-defined]
            assert all(text.isprintable() for text in texts)
            assert len(line.getMessage()) < 1000
        assert [line.item_id for line in lines(caplog)] == [  # type: ignore[attr-defined]
            r"x\n2026-01-01 ERROR \x1b[31m\u2028\u202eall is lost",
            r"a\nb",
            7,
            None,
            2.5,
            r"('a\n', 1)",
        ]


@pytest.mark.parametrize("scope", SCOPES)
class TestErrorsWithoutRepr:
    class OddError(Exception):
        def __repr__(self) -> str:
            raise LookupError("no repr")

        __str__ = __repr__

    @pytest.mark.parametrize("hooks", [None, [], [LoggingOnRetryHook]])
    async def test_keep_their_retries(
        self, scope: Any, hooks: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        set_on_retry_hooks(hooks)
        results = await pipeline(Unreliable(2, self.OddError()), scope).run([1])
        assert results.values == [1]
        retried = [line for line in lines(caplog) if line.levelno == logging.WARNING]
        assert len(retried) == 2
        assert "OddError: <OddError whose text cannot be read>" in retried[0].getMessage()
        broken = [line.getMessage() for line in lines(caplog) if line.levelno == logging.ERROR]
        assert len(broken) == (2 if hooks else 0)
        assert all(
            "init_logging.<locals>.log_retries raised LookupError" in text for text in broken
        )


@pytest.fixture
def structlog(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand for structlog; return what is logged by it."""
    logged: list[str] = []

    class Logger:
        def warning(self, event: str, **fields: Any) -> None:
            logged.append(event)

    module: Any = ModuleType("structlog")
    module.get_logger = lambda name: Logger()
    monkeypatch.setitem(sys.modules, "structlog", module)
    set_on_retry_hooks(None)
    return logged


@pytest.fixture
def no_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "structlog", None)
    set_on_retry_hooks(None)


@pytest.fixture
def prometheus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand for prometheus_client; return what is counted by it."""
    counted: list[str] = []

    class Counter:
        def __init__(self, *arguments: Any) -> None:
            pass

        def labels(self, callable: str, **labels: Any) -> Counter:
            counted.append(callable)
            return self

        def inc(self) -> None:
            pass

    module: Any = ModuleType("prometheus_client")
    module.Counter = Counter
    module.__spec__ = importlib.machinery.ModuleSpec("prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client", module)
    monkeypatch.setattr("stamina.instrumentation._prometheus.RETRIES_TOTAL", None)
    set_on_retry_hooks(None)
    return counted


async def retry_in_stamina() -> None:
    """Use stamina without antflow."""
    async for attempt in stamina.retry_context(on=ValueError, wait_initial=0, wait_jitter=0):
        with attempt:
            if attempt.num == 1:
                raise ValueError


@pytest.mark.parametrize("scope", SCOPES)
class TestHooksOfStamina:
    @pytest.mark.parametrize("used_before", [False, True])
    async def test_the_default_does_not_print_by_structlog(
        self, scope: Any, used_before: bool, structlog: list[str], caplog: Any
    ) -> None:
        if used_before:
            await retry_in_stamina()
            assert structlog.pop() == "stamina.retry_scheduled"
        await pipeline(Unreliable(), scope).run([1])
        assert structlog == []
        assert len(lines(caplog)) == 1
        # And what else uses stamina is as before.
        await retry_in_stamina()
        assert structlog == ["stamina.retry_scheduled"]

    @pytest.mark.usefixtures("no_structlog")
    @pytest.mark.parametrize("used_before", [False, True])
    async def test_the_default_does_not_log(
        self, scope: Any, used_before: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        if used_before:
            await retry_in_stamina()
            assert len(lines(caplog, "stamina")) == 1
            caplog.clear()
        await pipeline(Unreliable(), scope).run([1])
        assert lines(caplog, "stamina") == []
        assert len(lines(caplog)) == 1
        await retry_in_stamina()
        assert len(lines(caplog, "stamina")) == 1

    async def test_the_default_still_counts(
        self, scope: Any, prometheus: list[str], structlog: list[str]
    ) -> None:
        await pipeline(Unreliable(), scope).run([1])
        assert prometheus == ["call" if scope == "task" else "Fetch"]
        assert structlog == []

    async def test_what_was_set_runs_also_if_it_is_the_same_as_the_default(
        self, scope: Any, structlog: list[str]
    ) -> None:
        set_on_retry_hooks([StructlogOnRetryHook])
        await pipeline(Unreliable(2), scope).run([1])
        await pipeline(Unreliable(), scope).run([1])
        assert structlog == ["stamina.retry_scheduled"] * 3

    async def test_what_was_set_and_used_before_runs_unless_it_is_the_same_as_the_default(
        self, scope: Any, structlog: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        details: list[Any] = []
        for hooks in ([LoggingOnRetryHook], [StructlogOnRetryHook, details.append]):
            set_on_retry_hooks(hooks)
            get_on_retry_hooks()
            await pipeline(Unreliable(), scope).run([1])
        assert structlog == ["stamina.retry_scheduled"]
        assert len(lines(caplog, "stamina")) == len(details) == 1
        # This is the limit that is documented.
        set_on_retry_hooks([StructlogOnRetryHook])
        get_on_retry_hooks()
        await pipeline(Unreliable(), scope).run([1])
        assert structlog == ["stamina.retry_scheduled"]

    async def test_the_default_that_was_put_back_is_the_default(
        self, scope: Any, structlog: list[str]
    ) -> None:
        before = get_on_retry_hooks()
        set_on_retry_hooks([])
        await pipeline(Unreliable(), scope).run([1])
        set_on_retry_hooks(before)
        await pipeline(Unreliable(), scope).run([1])
        set_on_retry_hooks(None)
        await pipeline(Unreliable(), scope).run([1])
        assert structlog == []

    async def test_runs_in_several_threads_agree(self, scope: Any, structlog: list[str]) -> None:
        def run() -> None:
            anyio.run(pipeline(Unreliable(), scope).run, [1])

        for hooks, count in ((None, 0), ([StructlogOnRetryHook], 8)):
            set_on_retry_hooks(hooks)
            threads = [threading.Thread(target=run) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(structlog) == count

    @pytest.mark.virtual_time
    async def test_context_managers_are_left_before_the_next_attempt(self, scope: Any) -> None:
        steps: list[str] = []

        @contextmanager
        def waiting(details: Any) -> Iterator[None]:
            steps.append("enter")
            try:
                yield
            finally:
                steps.append(f"exit at {anyio.current_time() - began:.0f}")

        class Noted(Unreliable):
            async def __call__(self, value: Any) -> Any:
                steps.append("attempt")
                return await super().__call__(value)

        set_on_retry_hooks([waiting])
        began = anyio.current_time()
        await pipeline(Noted(2), scope, 5).run([1])
        expected = ["attempt", "enter", "exit at 5", "attempt", "enter", "exit at 10", "attempt"]
        assert steps == expected
        steps.clear()
        began = anyio.current_time()
        with anyio.move_on_after(3):
            await pipeline(Noted(2), scope, 5).run([1])
        assert steps == ["attempt", "enter", "exit at 3"]

    async def test_context_managers_are_left_if_a_later_hook_raises(self, scope: Any) -> None:
        steps: list[str] = []

        @contextmanager
        def waiting(details: Any) -> Iterator[None]:
            steps.append("enter")
            try:
                yield
            finally:
                steps.append("exit")

        def fail(details: Any) -> None:
            raise LookupError("broken hook")

        set_on_retry_hooks([waiting, fail])
        results = await pipeline(Unreliable(), scope).run([1])
        assert [failure.error for failure in results.failures] == ["broken hook"]
        assert steps == ["enter", "exit"]

    async def test_without_the_private_names_of_stamina_retries_still_happen(
        self, scope: Any, monkeypatch: pytest.MonkeyPatch, structlog: list[str]
    ) -> None:
        monkeypatch.setattr(retry_report, "_stamina_config", None)
        details: list[Any] = []
        assert (await pipeline(Unreliable(), scope).run([1])).values == [1]
        assert structlog == []
        set_on_retry_hooks([details.append])
        assert (await pipeline(Unreliable(), scope).run([1])).values == [1]
        assert len(details) == 1

        def hidden(**arguments: Any) -> Any:
            class Context:
                def with_name(self, *arguments: Any) -> Any:
                    return self

                def __aiter__(self) -> Any:
                    return context.__aiter__() and self

                async def __anext__(self) -> Any:
                    return await context.__anext__()

                @property
                def _t_a_retrying(self) -> Any:
                    raise AttributeError

            context: Any = make_context(**arguments)
            return Context()

        make_context = stamina.retry_context
        monkeypatch.setattr(retries.stamina, "retry_context", hidden)
        assert (await pipeline(Unreliable(), scope).run([1])).values == [1]
        assert len(details) == 2
