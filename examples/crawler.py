"""
A crawler: a live pipeline whose tasks feed it with the links that they find. The site is a dict.

    python examples/crawler.py [--backend asyncio|trio]
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import anyio

from antflow import Pipeline, Stage

SITE = {
    "/": ["/news", "/about", "/shop"],
    "/news": ["/", "/news/1", "/news/2"],
    "/news/1": ["/news", "/news/2", "/lost"],
    "/news/2": ["/news", "/news/1"],
    "/about": ["/", "/shop"],
    "/shop": ["/", "/shop/ants", "/shop/bees"],
    "/shop/ants": ["/shop"],
    "/shop/bees": ["/shop", "/shop/ants"],
}


class Page(NamedTuple):
    """A page and its links."""

    path: str
    links: list[str]


class Crawler:
    """Visits each page once, and records which pages link to it."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.linked_from: dict[str, list[str]] = {}
        fetch = Stage("Fetch", 3, [self.fetch], task_attempts=1)
        self.pipeline = Pipeline([fetch, Stage("Index", 1, [self.index])])

    async def visit(self, paths: list[str]) -> None:
        new = [path for path in dict.fromkeys(paths) if path not in self.seen]
        self.seen.update(new)
        await self.pipeline.feed(new)

    async def fetch(self, path: str) -> Page:
        await anyio.sleep(0.01)
        if path not in SITE:
            raise LookupError("no such page")
        page = Page(path, SITE[path])
        await self.visit(page.links)
        return page

    async def index(self, page: Page) -> str:
        for link in page.links:
            self.linked_from.setdefault(link, []).append(page.path)
        return page.path


async def main() -> None:
    crawler = Crawler()
    async with crawler.pipeline as pipeline:
        await crawler.visit(["/"])
        await pipeline.join()
        for path in sorted(pipeline.results.values):
            print(f"{path:12} linked from {', '.join(sorted(crawler.linked_from[path]))}")
        for failed in pipeline.failures:
            print(f"{failed.value:12} {failed.error}: see {crawler.linked_from[failed.value]}")
    print(f"{pipeline.get_stats().items_processed} pages")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
