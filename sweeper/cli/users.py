"""``sweeper users``: who may use the dashboard of this home."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sweeper.access import Accounts, Role
from sweeper.cli.output import console, emit_json, safe, say, table
from sweeper.errors import AccessError
from sweeper.paths import Home

users = typer.Typer(no_args_is_help=True, help="Say who may use the dashboard, and what they may do there.")

_Name = Annotated[str, typer.Argument(help="Name of the user.", show_default=False)]
_Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of the input.")]


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the user; their e-mail with --oidc.", show_default=False)],
    role: Annotated[Role, typer.Option(help="Viewers see everything and change nothing.")] = "viewer",
    oidc: Annotated[bool, typer.Option("--oidc", help="They sign in by OIDC and have no password here.")] = False,
    password_stdin: _Stdin = False,
) -> None:
    """Add a user; the password is asked for, or read from the input."""
    if oidc and password_stdin:
        raise AccessError("--oidc and --password-stdin exclude each other: who signs in by OIDC has no password here")
    accounts = Accounts(Home.current())
    accounts.check_new(name, oidc=oidc)
    accounts.add(name, role, None if oidc else _password(password_stdin))
    say(f"{safe(name)} may use the dashboard as {role}" + (", signing in by OIDC" if oidc else ""))


@users.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the users of the dashboard."""
    found = [
        {"name": account.name, "role": account.role, "signs_in_by": "oidc" if account.by_oidc else "password"}
        for account in Accounts(Home.current()).all()
    ]
    if as_json:
        emit_json(found)
    elif found:
        console().print(table(("user", "role", "signs in by"), (user.values() for user in found)))
    else:
        say("no users: the dashboard serves this machine only, and asks nobody who they are; `sweeper users add`")


@users.command()
def remove(name: _Name) -> None:
    """Remove a user; whoever is signed in under the name is signed out at once."""
    Accounts(Home.current()).remove(name)
    say(f"{safe(name)} may no longer use the dashboard")


@users.command()
def password(name: _Name, password_stdin: _Stdin = False) -> None:
    """Give a user another password; whoever is signed in under the name must sign in again."""
    accounts = Accounts(Home.current())
    accounts.with_password(name)
    accounts.set_password(name, _password(password_stdin))
    say(f"the password of {safe(name)} is another now")


def _password(from_input: bool) -> str:
    if from_input:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise AccessError("there is no terminal to ask for the password; give it with --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt="The same again"))
