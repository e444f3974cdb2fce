"""How a run shows itself: bars that live in a terminal, one line an artifact in a file."""

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any, Literal

from rich.progress import Progress as Bars

from idal_assets.analysis.words import human_time
from idal_assets.progress import Track, bar, log_lines, silently
from idal_assets.study.graph import GRAPH
from idal_assets.study.study import NotMadeError, Study, named

Amount = Literal["little", "usual", "much"]
"""How much is said: the outcome alone; one line an artifact into a file; that in a terminal too, and of steps."""


class RunDisplay:
    """Shows how far a run is.

    Args:
        study: The study that is run.
        bars: Bars and the console below them.
        says: How much is said.
        write: Takes a line; by default it is printed above the bars.
    """

    def __init__(
        self, study: Study, bars: Bars, says: Amount = "usual", write: Callable[[str], Any] | None = None
    ) -> None:
        self._study, self._bars, self._says = study, bars, says
        self._write = write or self._print
        self._total = bars.add_task("all artifacts", total=None)
        self._wanted: list[str] = []
        self._left: dict[str, int] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self.done = 0

    @property
    def track(self) -> Track:
        """Shows the progress of a step."""
        if self._says == "much":
            return log_lines(self.say)
        return silently if self._bars.disable else bar(self._bars)

    @property
    def count_of_all(self) -> int:
        """How many artifacts there are, as far as is known."""
        return self.done + sum(self._left.values())

    def say(self, line: str) -> None:
        """Writes a line above the bars."""
        if self._says != "little":
            self._write(line)

    def _print(self, line: str) -> None:
        self._bars.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._bars.console.file.flush()

    def begin(self, wanted: Collection[str]) -> None:
        """Notes which assets the run looks at."""
        self._wanted = list(wanted)
        self.count()

    def count(self) -> None:
        """Counts what there is to look at, anew once it is known which cases there are."""
        seen = {name: len(seconds) for name, seconds in self._seconds.items()}
        for name in self._wanted:
            try:
                self._left[name] = max(0, len(GRAPH[name].keys(self._study)) - seen.get(name, 0))
            except NotMadeError:
                self._left.pop(name, None)
        self._bars.update(self._total, total=self.count_of_all)

    def starts(self, asset: str, key: str | None) -> None:
        """An artifact is being made."""
        self._bars.update(self._total, description=named(asset, key), left=self._time_left())

    def made(self, asset: str, key: str | None) -> None:
        """An artifact is made."""
        seconds = self._study.provenance(asset, key).seconds
        self._passed(asset, seconds)
        if self._bars.disable or self._says == "much":
            self.say(f"{self.done}/{self.count_of_all}  {named(asset, key)}, {human_time(seconds)}")

    def kept(self, asset: str, key: str | None) -> None:
        """An artifact is current."""
        self._passed(asset, 0.0)
        if self._says == "much":
            self.say(f"{self.done}/{self.count_of_all}  {named(asset, key)} is current")

    def _passed(self, asset: str, seconds: float) -> None:
        self.done += 1
        self._left[asset] = max(0, self._left.get(asset, 1) - 1)
        self._seconds[asset].append(seconds)
        self._bars.advance(self._total)

    def _time_left(self) -> str | None:
        """Time that the artifacts left take, as those of their asset took; None where half are of unknown cost."""
        known = {name: values for name, values in self._seconds.items() if any(values)}
        counted = {name: left for name, left in self._left.items() if left and name in known}
        if 2 * sum(counted.values()) < sum(self._left.values()):
            return None
        mean = {name: sum(values) / sum(value > 0 for value in values) for name, values in known.items()}
        return human_time(sum(left * mean[name] for name, left in counted.items()))
