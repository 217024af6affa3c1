"""Progress of a running study: a live view on a terminal, plain lines where output is piped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeper.config.study import StudyConfig
from sweeper.config.trial import TrialResult, TrialSpec
from sweeper.executors.listener import Listener
from sweeper.hardware import OtherLoad, cpus
from sweeper.redact import clean
from sweeper.search.candidate import Candidate

_LEADERS = 5
_NOTES = 6
_LOAD_EVERY_S = 5.0


@dataclass
class _Running:
    """A running trial."""

    candidate: Candidate
    spec: TrialSpec
    total_steps: int
    begun: float = field(default_factory=time.monotonic)
    first: int = 0
    step: int = 0
    latest: dict[str, float] = field(default_factory=dict)


class _Progress:
    """Trials seen so far, and an estimate of the time left."""

    def __init__(self, config: StudyConfig, done: int) -> None:
        self.config = config
        self.done = done
        self.begun = time.monotonic()
        self.here = 0
        self.ordered = 0
        self.running: dict[int, _Running] = {}
        self.seen: set[int] = set()
        self.leaders: list[tuple[float, int, str]] = []
        self.notes: deque[str] = deque(maxlen=_NOTES)
        self.stage_text = ""
        self.stage_fraction: float | None = None
        self._others, self._looked, self._taken = OtherLoad(), self.begun, 0.0

    def busy(self) -> str:
        """Return a sentence about other processes that slow down trials on the CPU; empty if there are none."""
        if time.monotonic() - self._looked >= _LOAD_EVERY_S:
            self._taken, self._looked = self._others.cores(), time.monotonic()
        if self._taken < max(0.5, cpus() / 4) or all(one.spec.device != "cpu" for one in self.running.values()):
            return ""
        return f"{self._taken:.1f} of {cpus()} cores are taken by other processes, so training is slower than usual"

    @property
    def total(self) -> int:
        return max(self.config.search.n_trials + self.ordered, self.done)

    def eta_s(self) -> float | None:
        """Return the seconds until the last trial ends, by the mean of those that ended here; None before the first."""
        if self.here == 0:
            return None
        elapsed = time.monotonic() - self.begun
        part = sum(running.step / max(1, running.total_steps) for running in self.running.values())
        return max(0.0, elapsed / (self.here + part) * (self.total - self.done - part))

    def started(self, candidate: Candidate, spec: TrialSpec, total_steps: int) -> None:
        """Add a trial that begins or continues; ordered trials come on top of the budget."""
        self.ordered += candidate.order is not None and candidate.number not in self.seen
        self.seen.add(candidate.number)
        self.running[candidate.number] = _Running(candidate, spec, total_steps)

    def reported(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Update a running trial."""
        running = self.running.get(number)
        if running is not None:
            if not running.step:
                running.first = step - 1  # a resumed trial does not begin at 0
            running.step = step
            running.latest |= metrics

    def ended(self, result: TrialResult) -> str:
        """Count a result and return it as one line."""
        seconds = result.train_seconds
        running = self.running.pop(result.number, None)
        parameters = shown_parameters(running.candidate.parameters) if running else ""
        if not result.outcome.is_open:
            self.done += 1
            self.here += 1
        if result.value is None:
            at = f" at step {result.steps} of {result.total_steps}" if result.total_steps else ""
            return f"trial {result.number} {result.outcome}{at}: {result.reason} ({seconds:.0f} s)"
        sign = 1 if self.config.evaluation.direction == "minimize" else -1
        self.leaders = sorted([*self.leaders, (sign * result.value, result.number, parameters)])[:_LEADERS]
        return (
            f"trial {result.number} complete: {self.config.evaluation.metric} {result.value:.4g} "
            f"at step {result.best_step} of {result.total_steps} ({seconds:.0f} s)"
        )


class View(Listener):
    """A listener that shows a study while its block runs."""

    def __init__(self, config: StudyConfig, done: int) -> None:
        self._progress = _Progress(config, done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def trial_reported(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Update a running trial."""
        self._progress.reported(number, step, metrics)

    def trial_left(self, number: int) -> None:
        """Remove a trial that another worker took over; a note says why."""
        self._progress.running.pop(number, None)

    def budget_changed(self, config: StudyConfig) -> None:
        """Use the new budget; a note says what changed."""
        self._progress.config = config


class PlainLines(View):
    """One line per event; nothing that needs a terminal."""

    def __init__(self, console: Console, config: StudyConfig, done: int = 0) -> None:
        super().__init__(config, done)
        self._console = console
        self._stage = ""
        self._told_busy = False

    def stage(self, text: str, fraction: float | None = None) -> None:
        """Print a stage once, not its every step."""
        if text != self._stage:
            self._stage = text
            self._line(text)

    def trial_started(self, candidate: Candidate, spec: TrialSpec, total_steps: int) -> None:
        """Print the configuration."""
        self._progress.started(candidate, spec, total_steps)
        shown = shown_parameters(candidate.parameters)
        self._line(f"trial {candidate.number} ({_why(candidate)}; {total_steps} steps): {shown}")

    def trial_reported(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Print evaluations; the loss of every step is in the database."""
        super().trial_reported(number, step, metrics)
        metric = self._progress.config.evaluation.metric
        if metric in metrics and number in self._progress.running:
            total = self._progress.running[number].total_steps
            self._line(f"trial {number} step {step}/{total}: {metric} {metrics[metric]:.4g}")
        if not self._told_busy and (busy := self._progress.busy()):
            self._told_busy = True
            self.note(busy)

    def trial_ended(self, result: TrialResult) -> None:
        """Print its result and the study's progress."""
        line = self._progress.ended(result)
        eta = self._progress.eta_s()
        rest = f", about {duration(eta)} left" if eta else ""
        self._line(f"{line} [{self._progress.done}/{self._progress.total}{rest}]")

    def note(self, text: str) -> None:
        """Print it."""
        self._line(f"note: {text}")

    def _line(self, text: str) -> None:
        self._console.print(Text(clean(text)), soft_wrap=True)


class LiveView(View):
    """Budget, running trials, a leaderboard, and what was pruned and why, refreshed in place."""

    def __init__(self, console: Console, config: StudyConfig, done: int = 0) -> None:
        super().__init__(config, done)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def stage(self, text: str, fraction: float | None = None) -> None:
        """Show a stage with its bar."""
        self._progress.stage_text, self._progress.stage_fraction = text, fraction

    def trial_started(self, candidate: Candidate, spec: TrialSpec, total_steps: int) -> None:
        """Show the trial."""
        self._progress.stage_text = ""
        self._progress.started(candidate, spec, total_steps)

    def trial_ended(self, result: TrialResult) -> None:
        """Move it to the leaderboard or the notes."""
        self._progress.notes.append(self._progress.ended(result))

    def note(self, text: str) -> None:
        """Show it among the notes."""
        self._progress.notes.append(text)

    def _render(self) -> RenderableType:
        progress = self._progress
        running = list(progress.running.values())  # a copy: another thread draws than the one that trains
        parts: list[RenderableType] = [_budget(progress)]
        if progress.stage_text:
            parts.append(_stage(progress))
        if running:
            parts.append(_slots(running, progress.config.evaluation.metric))
            if busy := progress.busy():
                parts.append(Text(busy, style="yellow"))
        if progress.leaders:
            parts.append(_leaderboard(progress))
        parts += [Text(clean(note), style="dim", overflow="ellipsis", no_wrap=True) for note in progress.notes]
        return Panel(Group(*parts), title=f"sweeper: {clean(progress.config.name)}", title_align="left")


def _budget(progress: _Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    eta = progress.eta_s()
    elapsed = duration(time.monotonic() - progress.begun)
    rest = f"about {duration(eta)} left" if eta is not None else "time left known after the first trial"
    grid.add_row(
        f"trials {progress.done}/{progress.total}",
        ProgressBar(total=progress.total, completed=progress.done, width=30),
        f"{elapsed} elapsed, {rest}",
    )
    return grid


def _stage(progress: _Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    fraction = progress.stage_fraction
    bar = ProgressBar(total=1.0, completed=fraction or 0.0, width=30, pulse=fraction is None)
    grid.add_row(Text(clean(progress.stage_text)), bar)
    return grid


def _slots(running: Sequence[_Running], metric: str) -> RenderableType:
    """Show the running trials, one line each; of a single one its configuration too."""
    grid = Table.grid(padding=(0, 1))
    for one in running:
        bar = ProgressBar(total=max(1, one.total_steps), completed=one.step, width=30 if len(running) == 1 else 15)
        grid.add_row(f"trial {one.candidate.number}", bar, _numbers(one, metric))
    if len(running) > 1:
        return grid
    tries = shown_parameters(running[0].candidate.parameters)
    return Group(grid, Text(f"  {_why(running[0].candidate)}: {tries}", style="cyan"))


def _numbers(running: _Running, metric: str) -> str:
    numbers = [f"step {running.step}/{running.total_steps}"]
    numbers += [
        f"{name} {running.latest[name]:.4g}" for name in ("loss", "learning_rate", metric) if name in running.latest
    ]
    taken = running.step - running.first
    if taken > 0:
        left = (time.monotonic() - running.begun) / taken * (running.total_steps - running.step)
        numbers.append(f"{duration(left)} left")
    return "  ".join(numbers)


def _leaderboard(progress: _Progress) -> RenderableType:
    sign = 1 if progress.config.evaluation.direction == "minimize" else -1
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column("trial", justify="right", min_width=5)
    table.add_column(
        progress.config.evaluation.metric, justify="right", min_width=len(progress.config.evaluation.metric)
    )
    table.add_column("configuration", overflow="ellipsis", no_wrap=True, ratio=1)
    for value, number, parameters in progress.leaders:
        table.add_row(str(number), f"{sign * value:.4g}", parameters)
    return table


def _why(candidate: Candidate) -> str:
    if candidate.confirms is not None:
        return f"trial {candidate.confirms} repeated with another seed"
    if candidate.clones is not None:
        return f"requested: trial {candidate.clones} with changes"
    if candidate.order is not None:
        return "requested"
    return {"enqueued": "recommended", "sampled": "sampled"}.get(candidate.kind, str(candidate.kind))


def shown_parameters(parameters: Mapping[str, object]) -> str:
    """Return hyperparameters on one line."""
    shown = (
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in parameters.items()
    )
    return clean("  ".join(shown))


def duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
