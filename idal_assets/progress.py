"""How long work shows its progress: silently, as log lines or as bars in the terminal."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

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


def terminal_bars(quiet: bool = False) -> RichProgress:
    """Bars for the terminal; use it as a context and its `track` through `bar`.

    Into a file no bar is drawn; what is said through its console is written there at once.

    Args:
        quiet: Whether no bar is drawn in the terminal either.
    """
    console = Console()
    return RichProgress(
        TextColumn("{task.description:<44.44}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _TimeLeft(compact=True),
        console=console,
        disable=quiet or not console.is_terminal,
    )


class _TimeLeft(TimeRemainingColumn):
    """Time left as somebody told who knows what the rest costs, else by the pace so far."""

    def render(self, task: Task) -> Text:
        """Writes it."""
        told = task.fields.get("left")
        return super().render(task) if told is None else Text(told, style="progress.remaining")


def bar(bars: RichProgress) -> Track:
    """Shows progress as a bar that goes away when it is full."""

    def track(items: Sequence[T], description: str) -> Iterator[T]:
        task = bars.add_task(description, total=len(items))
        for item in items:
            yield item
            bars.advance(task)
        bars.remove_task(task)

    return track
