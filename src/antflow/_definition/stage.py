"""`Stage`: the definition of a stage, checked when it is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from attrs import field, frozen

from .._model.errors import StageValidationError
from .callables import TaskFunction, task_name
from .limits import check_limits
from .retry_policy import RetryPolicy
from .validation import check_callback, check_int, check_number, check_signature, reject_argument

Task = Callable[..., Any]
Callback = Callable[..., Any]

# The defaults of the plain retry keywords. Other values are rejected beside a RetryPolicy.
_PLAIN_RETRY = {"task_attempts": 3, "task_wait_seconds": 1.0, "stage_attempts": 3}


def _owner(stage: Stage) -> str:
    return f"Stage {stage.name!r}"


def _check_name(stage: Stage, attribute: Any, name: Any) -> None:
    if not isinstance(name, str) or not name.strip():
        reject_argument("Stage", "name", "a string that is not empty", name)


def _check_workers(stage: Stage, attribute: Any, workers: Any) -> None:
    if callable(workers) or isinstance(workers, (list, tuple)):
        hint = "Write tasks=[…]: the second argument of Stage is the number of workers."
        reject_argument(_owner(stage), "workers", "a whole number of at least 1", workers, hint)
    check_int(_owner(stage), "workers", workers, at_least=1)


def _check_tasks(stage: Stage, attribute: Any, tasks: object) -> None:
    owner = _owner(stage)
    bound = "a list or tuple of functions"
    if callable(tasks):
        reject_argument(owner, "tasks", bound, tasks, f"Write tasks=[{task_name(tasks)}].")
    if isinstance(tasks, (str, bytes)) or not isinstance(tasks, Sequence):
        reject_argument(owner, "tasks", bound, tasks)
    if not tasks:
        reject_argument(
            owner, "tasks", "at least one function", tasks, "Write tasks=[your_function]."
        )
    for index, task in enumerate(tasks):
        if inspect.iscoroutine(task):
            name = task.__name__
            task.close()
            reject_argument(
                owner,
                f"tasks[{index}]",
                "a function",
                task,
                f"Write tasks=[{name}], not tasks=[{name}(…)].",
            )
        if not callable(task):
            reject_argument(owner, f"tasks[{index}]", "a function", task)
        if inspect.isasyncgenfunction(task) or inspect.isgeneratorfunction(task):
            reject_argument(
                owner,
                f"tasks[{index}]",
                "a function that returns one value",
                task,
                "It is a generator function: collect what it yields and return that.",
            )
        if stage.unpack_args is not True:
            check_signature(owner, f"tasks[{index}]", task, "value")


def _check_retry(stage: Stage, attribute: Any, retry: object) -> None:
    if retry is None or isinstance(retry, RetryPolicy):
        return
    if not isinstance(retry, str) or retry not in ("per_task", "per_stage"):
        hint = "Write retry=RetryPolicy()." if retry is RetryPolicy else None
        reject_argument(
            _owner(stage), "retry", "'per_task', 'per_stage', None or a RetryPolicy", retry, hint
        )


def _check_attempts(stage: Stage, attribute: Any, attempts: object) -> None:
    check_int(_owner(stage), attribute.name, attempts, at_least=1)


def _check_wait(stage: Stage, attribute: Any, wait: object) -> None:
    check_number(_owner(stage), attribute.name, wait, at_least=0)


def _check_callback(stage: Stage, attribute: Any, callback: object) -> None:
    names = ("item_id", "error" if attribute.name == "on_failure" else "value", "payload")
    check_callback(_owner(stage), attribute.name, callback, *names)


def _check_skip_if(stage: Stage, attribute: Any, skip_if: object) -> None:
    check_callback(_owner(stage), attribute.name, skip_if, "value")


def _check_flag(stage: Stage, attribute: Any, flag: object) -> None:
    if not isinstance(flag, bool):
        reject_argument(_owner(stage), attribute.name, "True or False", flag)


def _check_capacity(stage: Stage, attribute: Any, capacity: object) -> None:
    if capacity is not None:
        check_int(_owner(stage), "queue_capacity", capacity, at_least=0, infinite=True)


def _check_timeout(stage: Stage, attribute: Any, timeout: object) -> None:
    if timeout is not None:
        check_number(_owner(stage), "task_timeout", timeout, at_least=0, above=True)


def _check_limits(stage: Stage, attribute: Any, limits: object) -> None:
    check_limits(_owner(stage), limits)
    names = [task_name(task) for task in stage.tasks]
    for name in limits:  # type: ignore[attr-defined]
        if name not in names:
            raise StageValidationError(
                f"{_owner(stage)}: task_concurrency_limits names {name!r}, and this stage has "
                f"no task of that name. Its tasks are {', '.join(map(repr, names))}."
            )


def _copy_if_sequence(tasks: Sequence[Task]) -> Sequence[Task]:
    is_list = isinstance(tasks, Sequence) and not isinstance(tasks, (str, bytes))
    return tuple(tasks) if is_list else tasks


def _copy_if_mapping(limits: Mapping[str, int]) -> Mapping[str, int]:
    return dict(limits) if isinstance(limits, Mapping) else limits


@frozen(eq=False)
class Stage:
    """
    One step of a pipeline: tasks that run in sequence for each item, and a pool of workers.

    A task is a function of one argument. The first task receives the value of the item, and each
    further one what the previous one returned. Async functions are awaited in the event loop. Plain
    functions run in worker threads, at most one for each worker of the stage. If a plain function
    returns an awaitable, that is awaited in the event loop.

    Args:
        name: Not empty, and different from the names of the other stages of the pipeline.
        workers: How many items may be in progress at this stage at the same time. Workers start
            when they are needed.
        tasks: The functions; at least one.
        retry: ``"per_task"``: a task that raises is retried by itself. ``"per_stage"``: the item
            goes back to the queue of this stage and starts again with the first task; meanwhile the
            worker processes other items. Or a `RetryPolicy`. None means one attempt.
        task_attempts: For ``"per_task"``: how many attempts of a task are made in total.
        task_wait_seconds: Seconds between two attempts of a task or of the stage.
        stage_attempts: For ``"per_stage"``: how many attempts of the stage are made in total.
        task_concurrency_limits: By task name, how many attempts of that task may run at the same
            time in this stage.
        on_success: ``on_success(item_id, value, payload)`` is called when an item leaves this
            stage with success; *payload* is a new dict of id, value and metadata.
        on_failure: ``on_failure(item_id, error, payload)`` is called when an item fails at this
            stage for good. The value in *payload* is the one that the stage received; *payload*
            also has the ``input`` as it came from the source, and the name of the ``stage``.
        on_skip: ``on_skip(item_id, value, payload)`` is called when ``skip_if`` returned a true
            value.
        skip_if: A function of the value, sync or async. If it returns a true value, the item leaves
            the stage unchanged, and no task is called. If it raises, the item fails.
        unpack_args: Whether tasks are called with ``*value`` if the value is a tuple or list, and
            with ``**value`` if it is a dict.
        queue_capacity: How many items may wait for this stage: a whole number or ``math.inf``. With
            0, no item waits in the queue, and each is handed to a worker directly. By default
            ``max(128, 2 * workers)``.
        task_timeout: How many seconds one attempt of a task may take. After that it fails with a
            `TimeoutError`, which is retried like any other error. A plain function cannot be
            interrupted: its attempt fails when it returns late.

    With ``"per_stage"`` an item keeps its slot in the stage while it waits for its next attempt;
    there are ``workers + queue_capacity`` slots. All callbacks may be sync or async.

    Raises:
        StageValidationError: An argument is not valid.
    """

    name: str = field(validator=_check_name)
    workers: int = field(default=1, validator=_check_workers)
    tasks: Sequence[Task] = field(default=(), converter=_copy_if_sequence, validator=_check_tasks)
    retry: Literal["per_task", "per_stage"] | RetryPolicy | None = field(
        default="per_task", validator=_check_retry
    )
    task_attempts: int = field(default=3, validator=_check_attempts)
    task_wait_seconds: float = field(default=1.0, validator=_check_wait)
    stage_attempts: int = field(default=3, validator=_check_attempts)
    task_concurrency_limits: Mapping[str, int] = field(
        factory=dict, converter=_copy_if_mapping, validator=_check_limits, kw_only=True
    )
    on_success: Callback | None = field(default=None, validator=_check_callback, kw_only=True)
    on_failure: Callback | None = field(default=None, validator=_check_callback, kw_only=True)
    on_skip: Callback | None = field(default=None, validator=_check_callback, kw_only=True)
    skip_if: Callable[[Any], Any] | None = field(
        default=None, validator=_check_skip_if, kw_only=True
    )
    unpack_args: bool = field(default=False, validator=_check_flag, kw_only=True)
    queue_capacity: int | float | None = field(
        default=None, validator=_check_capacity, kw_only=True
    )
    task_timeout: float | None = field(default=None, validator=_check_timeout, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.retry is None or isinstance(self.retry, RetryPolicy):
            beside, hint = "a RetryPolicy", "Write it into the policy."
            if self.retry is None:
                beside, hint = "retry=None", "Leave it out."
            for argument, default in _PLAIN_RETRY.items():
                value = getattr(self, argument)
                if value != default:
                    raise StageValidationError(
                        f"{_owner(self)}: {argument}={value!r} has no effect beside "
                        f"{beside}. {hint}"
                    )
        # Derived now, and not in the first run.
        _ = self.retry_policy, self.capacity, self._functions

    @cached_property
    def retry_policy(self) -> RetryPolicy:
        """The `RetryPolicy` that applies: the one given, or that of the plain keywords."""
        if self.retry is None:
            return RetryPolicy.never()
        if isinstance(self.retry, RetryPolicy):
            return self.retry
        if self.retry == "per_task":
            return RetryPolicy.fixed("task", self.task_attempts, self.task_wait_seconds)
        return RetryPolicy.fixed("stage", self.stage_attempts, self.task_wait_seconds)

    @cached_property
    def capacity(self) -> int | float:
        """How many items may wait for this stage: `queue_capacity`, or its default."""
        if self.queue_capacity is None:
            return max(128, 2 * self.workers)
        return self.queue_capacity

    @cached_property
    def _functions(self) -> tuple[TaskFunction, ...]:
        """The tasks, with their names: for the engine."""
        return tuple(TaskFunction.of(task) for task in self.tasks)


def check_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return *stages* as a tuple, or reject them as the stages of a pipeline."""
    if isinstance(stages, Stage):
        reject_argument("Pipeline", "stages", "a list of stages", stages, "Write stages=[stage].")
    if not isinstance(stages, Sequence) or isinstance(stages, (str, bytes)):
        reject_argument("Pipeline", "stages", "a list of stages", stages)
    if not stages:
        reject_argument("Pipeline", "stages", "at least one Stage", stages)
    names: set[str] = set()
    for index, stage in enumerate(stages):
        if not isinstance(stage, Stage):
            hint = "Write Stage(name=…, tasks=[…])."
            reject_argument("Pipeline", f"stages[{index}]", "a Stage", stage, hint)
        if stage.name in names:
            raise StageValidationError(
                f"Pipeline: two stages are named {stage.name!r}; statistics and events distinguish "
                f"stages by name. Rename stages[{index}]."
            )
        names.add(stage.name)
    return tuple(stages)
