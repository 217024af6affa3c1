"""The ``sweeper`` command: the table of all commands, each imported only when it is called.

A command is a function annotated for typer, a group of commands a ``typer.Typer``; a line in ``COMMANDS`` adds either.
Its docstring is the help text, and begins with the line that ``COMMANDS`` has. Its module may import at the top what it
needs, but no torch if the command must start fast (``check``, ``status``). Commands print through
``sweeper.cli.output``, and raise ``SweeperError`` for whatever they refuse: one message, and the error's exit code.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import sweeper
from sweeper.cli.output import DEBUG, INTERRUPTED, handled

START, STEER, LOOK = "Start a study", "Steer a running study", "Look at results"
SHIP, HOME = "Ship the winner", "Look after this home"
"""Headings of ``sweeper --help``, in the order of a study's life."""


class Lazy(NamedTuple):
    """A command that is not imported yet.

    Attributes:
        panel: Its heading in ``sweeper --help``.
        module: Module of ``sweeper.cli`` to import.
        help: One line.
        attribute: A function annotated for typer, or a ``typer.Typer`` for a group; the command's name if empty.
    """

    panel: str
    module: str
    help: str
    attribute: str = ""


COMMANDS = {
    "init": Lazy(START, "init", "Write a commented study file for your data."),
    "check": Lazy(START, "check", "Check a study without training: errors, steps, memory and duration."),
    "run": Lazy(START, "run", "Run a study: search, train, compare, and register the winner."),
    "resume": Lazy(START, "run", "Resume a stopped study."),
    "pause": Lazy(STEER, "orders", "Pause a running study after the current step."),
    "stop": Lazy(STEER, "orders", "Stop a running study, or one of its trials, after the current step."),
    "enqueue": Lazy(STEER, "orders", "Queue a configuration to run next."),
    "clone": Lazy(STEER, "orders", "Rerun a trial with changed parameters."),
    "budget": Lazy(STEER, "orders", "Change the budget of a study, even while it runs."),
    "orders": Lazy(STEER, "orders", "List the orders given to a study and what became of them."),
    "status": Lazy(LOOK, "studies", "Show the state of all studies, or of one."),
    "trials": Lazy(LOOK, "studies", "List the trials of a study."),
    "best": Lazy(LOOK, "studies", "Show the winner of a study and why it won."),
    "compare": Lazy(LOOK, "compare", "Compare trials, adapters and base models on the same examples."),
    "data": Lazy(LOOK, "data", "Show a study's data as training sees them."),
    "dashboard": Lazy(LOOK, "dashboard", "Open the dashboard in a browser."),
    "adapters": Lazy(SHIP, "adapters", "Compare, promote, roll back and annotate registered adapters."),
    "export": Lazy(SHIP, "export", "Export an adapter for other tools, and verify the export."),
    "models": Lazy(SHIP, "models", "List, download and remove base models."),
    "guide": Lazy(HOME, "guide", "Read a guide in the terminal."),
    "doctor": Lazy(HOME, "doctor", "Check this machine, or find inconsistencies in a study."),
    "gc": Lazy(HOME, "upkeep", "Delete files that are no longer needed."),
    "backup": Lazy(HOME, "upkeep", "Back up this home, even while studies run."),
    "migrate-storage": Lazy(HOME, "upkeep", "Move this home's studies to PostgreSQL.", "migrate_storage"),
    "users": Lazy(HOME, "users", "Manage who may use the dashboard."),
}
"""Every command by name, in the order of the help."""


def markup() -> Literal["rich"] | None:
    """Return how help is printed: in panels on a terminal, as plain text when piped."""
    return "rich" if sys.stdout.isatty() else None


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and imports the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: TyperCommand(name, help=lazy.help, rich_help_panel=lazy.panel) for name, lazy in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that ``args`` name, imported."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever it raises becomes one clear message and an exit code."""
        with handled():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands under their headings, for plain help."""
        longest = max(map(len, COMMANDS))
        for panel, commands in groupby(COMMANDS.items(), key=lambda command: command[1].panel):
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(longest), lazy.help) for name, lazy in commands])


def load(name: str) -> Any:
    """Import a command and return it as typer's command object."""
    lazy = COMMANDS[name]
    found = getattr(importlib.import_module(f"sweeper.cli.{lazy.module}"), lazy.attribute or name)
    alone = typer.Typer(add_completion=False, rich_markup_mode=markup())
    if isinstance(found, typer.Typer):
        found.rich_markup_mode = markup()
        alone.add_typer(found, name=name)
        return typer.main.get_group(alone).commands[name]
    alone.command(name)(found)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=markup(),
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sweeper {sweeper.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (also SWEEPER_DEBUG=1).")] = False,
) -> None:
    """Hyperparameter search and experiment management for LLM fine-tuning."""
    if debug:
        os.environ[DEBUG] = "1"


def main() -> None:
    """Run the command line."""
    # Before any command imports bitsandbytes: it warns of a missing CPU kernel that it replaces by itself.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character must not stop a study
    try:
        app(prog_name="sweeper")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
