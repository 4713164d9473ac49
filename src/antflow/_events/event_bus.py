"""The event bus. `Subscription` objects are the only callers of callbacks and event handlers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field

from .._backend.cancellation import is_item_failure
from .._definition.callables import handler_name, is_awaitable
from .._model.events import StatusEvent, TaskEvent

logger = logging.getLogger("antflow")

Handler = Callable[..., Any]


@define(eq=False)
class Subscription:
    """
    A handler, and how often it has raised.

    Attributes:
        handler: A function, sync or async; what it returns is ignored.
        name: Its name in the log.
        errors: How often it has raised.
    """

    handler: Handler
    name: str
    errors: int = field(default=0, init=False)

    def notify(self, *args: Any) -> Awaitable[None] | None:
        """
        Call the handler. An `Exception` that it raises is counted, and logged the first time.

        Returns:
            None if the handler is done, else an awaitable that finishes it. So a sync handler costs
            no coroutine.
        """
        try:
            outcome = self.handler(*args)
        except BaseException as error:
            self.raised(error)
            return None
        if outcome is not None and is_awaitable(outcome):
            return self.finish(outcome)
        return None

    async def finish(self, outcome: Awaitable[Any]) -> None:
        """Wait for *outcome*, which the handler returned."""
        try:
            await outcome
        except BaseException as error:
            self.raised(error)

    def raised(self, error: BaseException) -> None:
        """
        Count *error*, which the handler raised.

        Raises:
            BaseException: *error* itself, if it must end the run.
        """
        if not is_item_failure(error):
            try:
                raise error
            finally:
                # Its traceback refers to this frame.
                del error
        self.errors += 1
        if self.errors == 1:
            logger.error(
                "%s raised; the item is not affected. Its further errors are counted, not logged",
                self.name,
                # A tuple, because logging tests the truth value, and an error may define its own.
                exc_info=(type(error), error, error.__traceback__),
            )


async def _finish_publishing(
    first: Awaitable[None], rest: list[Subscription], event: object
) -> None:
    """Finish the handler that is not done yet, then notify the remaining ones in order."""
    await first
    for subscription in rest:
        pending = subscription.notify(event)
        if pending is not None:
            await pending


def publish_to(
    subscriptions: list[Subscription], event: StatusEvent | TaskEvent
) -> Awaitable[None] | None:
    """
    Deliver *event* to all of *subscriptions*, one after the other.

    Returns:
        None if all handlers are done, else an awaitable that finishes them. Publishers check
        *subscriptions* first, and build no event if there are none.
    """
    notified = 0
    for subscription in subscriptions:
        notified += 1
        # Inlined from `notify()`, because passing `*args` has a cost.
        try:
            outcome = subscription.handler(event)
        except BaseException as error:
            subscription.raised(error)
            continue
        if outcome is not None and is_awaitable(outcome):
            return _finish_publishing(subscription.finish(outcome), subscriptions[notified:], event)
    return None


@define(eq=False)
class EventBus:
    """
    Delivers each event to the subscriptions of its type, in the order of subscription.

    Sync handlers are called inline, and async ones are awaited, before the item moves on. A handler
    that raises does not affect the item: its first error is logged to the ``antflow`` logger with
    the traceback, and all are counted in `Subscription.errors`.

    Attributes:
        status_subscriptions: The subscriptions to `StatusEvent`. While there are none, no such
            event is built. The list is replaced and never mutated.
        task_subscriptions: The subscriptions to `TaskEvent`; likewise.
    """

    # Lists and not tuples: their truth value is tested several times per item, and that is faster
    # for a list.
    status_subscriptions: list[Subscription] = field(factory=list, init=False)
    task_subscriptions: list[Subscription] = field(factory=list, init=False)

    def subscribe(
        self,
        event_type: type[StatusEvent] | type[TaskEvent],
        handler: Handler | Subscription,
        *,
        name: str | None = None,
    ) -> Subscription:
        """
        Call *handler* with each event of *event_type* from now on.

        Args:
            event_type: `StatusEvent` or `TaskEvent`.
            handler: A function of one argument, sync or async; or a `Subscription`.
            name: The name of the function in the log; by default its qualified name.

        Raises:
            TypeError: *event_type* is neither of the two, or *handler* cannot be called.
        """
        if isinstance(handler, Subscription):
            subscription = handler
        elif callable(handler):
            subscription = Subscription(handler, name or handler_name(handler))
        else:
            raise TypeError(f"handler must be a function of one argument, got {handler!r}")
        if event_type is StatusEvent:
            self.status_subscriptions = [*self.status_subscriptions, subscription]
        elif event_type is TaskEvent:
            self.task_subscriptions = [*self.task_subscriptions, subscription]
        else:
            raise TypeError(f"event_type must be StatusEvent or TaskEvent, got {event_type!r}")
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop calling *subscription*; no-op if it is not subscribed."""
        self.status_subscriptions = [
            other for other in self.status_subscriptions if other is not subscription
        ]
        self.task_subscriptions = [
            other for other in self.task_subscriptions if other is not subscription
        ]

    def publish(self, event: StatusEvent | TaskEvent) -> Awaitable[None] | None:
        """
        Deliver *event*, which the caller has built.

        Returns:
            None if all handlers are done, else an awaitable that finishes them.
        """
        if type(event) is StatusEvent:
            return publish_to(self.status_subscriptions, event)
        return publish_to(self.task_subscriptions, event)
