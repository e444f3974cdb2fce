"""How long work shows its progress: silently, as log lines or as bars in the terminal."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

T = TypeVar("T")

SECONDS_BETWEEN_LOG_LINES = 10.0


class Track(Protocol):
    """Iterates over items and shows how far it got."""

    def __call__(self, items: Sequence[T], description: str) -> Iterable[T]:
        """Yields every item in order; `description` says what is being done."""


def silently(items: Sequence[T], description: str) -> Iterable[T]:
    """Shows nothing."""
    return items


def log_lines(log: Callable[[str], None]) -> Track:
    """Shows progress as a log line every few seconds.

    Args:
        log: Takes one line, such as `logger.info`.
    """

    def track(items: Sequence[T], description: str) -> Iterator[T]:
        last = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - last >= SECONDS_BETWEEN_LOG_LINES:
                log(f"{description}: {done} of {len(items)}")
                last = time.monotonic()
            yield item

    return track


def terminal_bars() -> RichProgress:
    """Bars for the terminal; use it as a context and its `track` through `bar`."""
    return RichProgress(
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )


def bar(bars: RichProgress) -> Track:
    """Shows progress as a bar that goes away when it is full."""

    def track(items: Sequence[T], description: str) -> Iterator[T]:
        task = bars.add_task(description, total=len(items))
        for item in items:
            yield item
            bars.advance(task)
        bars.remove_task(task)

    return track
