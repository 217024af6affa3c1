"""The ``sweeper`` command: assembles the commands, none of which is imported before it is called.

How a command is written: a file of ``sweeper/cli/`` holds one function a command, a plain function whose parameters
are annotated for typer (``Annotated[Path, typer.Argument(help=...)]``) and whose docstring is the help text of the
command (its first line begins with what ``COMMANDS`` says of it). A group of commands is a
``typer.Typer`` instead of a function. One line in ``COMMANDS`` adds it. Because a file is imported only when its
command is called, it may import what it needs at its top; what must start fast (``check``, ``status``) must not
import torch there.

Commands print through ``sweeper.cli.output``, and raise ``SweeperError`` for whatever they refuse: it becomes one
message on standard error and the exit code of the error. They need not catch anything themselves.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

import sweeper
from sweeper.cli.output import DEBUG, INTERRUPTED, handled


class Lazy(NamedTuple):
    """Where a command is, and its line in ``sweeper --help``.

    Attributes:
        module: Module to import.
        attribute: A function annotated for typer, or a ``typer.Typer`` for a group.
        help: One line.
    """

    module: str
    attribute: str
    help: str


COMMANDS = {
    "init": Lazy("sweeper.cli.init", "init", "Write a commented study file for your data."),
    "check": Lazy("sweeper.cli.check", "check", "Say everything about a study that can be known without training."),
    "run": Lazy("sweeper.cli.run", "run", "Run a study: search, train, compare, register the winner."),
    "resume": Lazy("sweeper.cli.run", "resume", "Go on with a study that was stopped."),
    "pause": Lazy("sweeper.cli.orders", "pause", "Let a running study stand still after the step under way."),
    "stop": Lazy("sweeper.cli.orders", "stop", "Stop a running study, or one of its trials, after the step under way."),
    "enqueue": Lazy("sweeper.cli.orders", "enqueue", "Run a configuration next, on top of the study's own trials."),
    "clone": Lazy("sweeper.cli.orders", "clone", "Run a trial's configuration again with changed parameters."),
    "budget": Lazy("sweeper.cli.orders", "budget", "Change the budget of a study while it runs."),
    "orders": Lazy("sweeper.cli.orders", "orders", "Show what was asked of a study, by whom, and what became of it."),
    "status": Lazy("sweeper.cli.studies", "status", "Show the studies of this home, or one of them."),
    "trials": Lazy("sweeper.cli.studies", "trials", "List the trials of a study."),
    "best": Lazy("sweeper.cli.studies", "best", "Show the winner of a study."),
    "compare": Lazy("sweeper.cli.compare", "compare", "Compare trials and adapters: scores in pairs, a verdict."),
    "data": Lazy("sweeper.cli.data", "data", "Show a study's data as its training sees them."),
    "export": Lazy("sweeper.cli.export", "export", "Write the winner for other tools, and verify what was written."),
    "adapters": Lazy(
        "sweeper.cli.adapters", "adapters", "Compare, promote, roll back and describe the registered adapters."
    ),
    "models": Lazy("sweeper.cli.models", "models", "List, fetch and remove base models."),
    "migrate-storage": Lazy(
        "sweeper.cli.migrate_storage", "migrate_storage", "Move the studies of this home to a PostgreSQL database."
    ),
    "dashboard": Lazy("sweeper.cli.dashboard", "dashboard", "Show the studies and adapters of this home in a browser."),
    "users": Lazy("sweeper.cli.users", "users", "Say who may use the dashboard, and what they may do there."),
    "gc": Lazy("sweeper.cli.gc", "gc", "Remove from disk what nothing needs any more, and say why of each."),
    "backup": Lazy("sweeper.cli.backup", "backup", "Copy this home, while studies run, to a folder of its own."),
    "doctor": Lazy("sweeper.cli.doctor", "doctor", "Say what this machine has, and what the missing parts would give."),
}
"""Every command by name, in the order of the help."""


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and imports the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=lazy.help) for name, lazy in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that ``args`` name, imported."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever it raises becomes one clear message and an exit code."""
        with handled():
            return super().invoke(ctx)


def load(name: str) -> Any:
    """Import a command and return it as typer's command object."""
    lazy = COMMANDS[name]
    found = getattr(importlib.import_module(lazy.module), lazy.attribute)
    alone = typer.Typer(add_completion=False)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
        return typer.main.get_group(alone).commands[name]
    alone.command(name)(found)
    return typer.main.get_command(alone)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})


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
    """Search hyperparameters for LLM fine-tuning, and keep every experiment."""
    if debug:
        os.environ[DEBUG] = "1"


def main() -> None:
    """Run the command line."""
    # Before any command imports bitsandbytes: it tells of a missing CPU kernel that it falls back from by itself.
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
