"""Pipelines written by hand: with plain awaits, with anyio streams, with asyncio queues."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from .tasks import Task

Run = Callable[[int], Awaitable[list[int]]]


def buffer_for(workers: int) -> int:
    """Return the capacity of a queue between two stages: enough for the workers of both."""
    return max(64, 2 * workers)


def sequential(tasks: list[Task], workers: int) -> Run:
    """No pipeline at all: the lower limit."""

    async def run(count: int) -> list[int]:
        results = []
        for value in range(count):
            for task in tasks:
                value = await task(value)
            results.append(value)
        return results

    return run


def anyio_streams(tasks: list[Task], workers: int) -> Run:
    """The pattern of the anyio manual: workers that iterate over a stream and send to the next."""
    buffer = buffer_for(workers)

    async def worker(task: Task, receive: Any, send: Any) -> None:
        async with receive, send:
            async for value in receive:
                await send.send(await task(value))

    async def feed(send: Any, count: int) -> None:
        async with send:
            for value in range(count):
                await send.send(value)

    async def run(count: int) -> list[int]:
        async with anyio.create_task_group() as group:
            send, receive = anyio.create_memory_object_stream[int](buffer)
            group.start_soon(feed, send, count)
            for task in tasks:
                next_send, next_receive = anyio.create_memory_object_stream[int](buffer)
                for _ in range(workers):
                    group.start_soon(worker, task, receive.clone(), next_send.clone())
                receive.close()
                next_send.close()
                receive = next_receive
            async with receive:
                results = [value async for value in receive]
        return sorted(results)

    return run


def anyio_nowait(tasks: list[Task], workers: int) -> Run:
    """The fastest use of streams: the nowait calls come first, and only values are kept."""
    buffer = buffer_for(workers)

    async def run(count: int) -> list[int]:
        streams = [anyio.create_memory_object_stream[Any](buffer) for _ in tasks]
        results: list[Any] = [None] * count

        async def worker(index: int) -> None:
            task = tasks[index]
            receive = streams[index][1]
            send = streams[index + 1][0] if index + 1 < len(tasks) else None
            while True:
                try:
                    number, value = receive.receive_nowait()
                except anyio.WouldBlock:
                    try:
                        number, value = await receive.receive()
                    except anyio.EndOfStream:
                        return
                except anyio.EndOfStream:
                    return
                value = await task(value)
                if send is None:
                    results[number] = value
                else:
                    try:
                        send.send_nowait((number, value))
                    except anyio.WouldBlock:
                        await send.send((number, value))

        async def stage(index: int) -> None:
            async with anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(worker, index)
            if index + 1 < len(tasks):
                streams[index + 1][0].close()

        async with anyio.create_task_group() as group:
            for index in range(len(tasks)):
                group.start_soon(stage, index)
            send = streams[0][0]
            for item in enumerate(range(count)):
                try:
                    send.send_nowait(item)
                except anyio.WouldBlock:
                    await send.send(item)
            send.close()
        for _, receive in streams:
            receive.close()
        return results

    return run


def asyncio_queues(tasks: list[Task], workers: int, buffer: int | None = None) -> Run:
    """Queues, and a sentinel for each worker: the usual pattern on asyncio."""
    if buffer is None:
        buffer = buffer_for(workers)
    done: Any = object()

    async def run(count: int) -> list[int]:
        queues = [asyncio.Queue[Any](buffer) for _ in tasks]
        results: list[Any] = [None] * count

        async def worker(index: int) -> None:
            task = tasks[index]
            queue = queues[index]
            downstream = queues[index + 1] if index + 1 < len(queues) else None
            while (item := await queue.get()) is not done:
                number, value = item
                value = await task(value)
                if downstream is None:
                    results[number] = value
                else:
                    await downstream.put((number, value))

        pools = [
            [asyncio.create_task(worker(index)) for _ in range(workers)]
            for index in range(len(tasks))
        ]
        for item in enumerate(range(count)):
            await queues[0].put(item)
        for queue, pool in zip(queues, pools):
            for _ in pool:
                await queue.put(done)
            await asyncio.gather(*pool)
        return results

    return run
