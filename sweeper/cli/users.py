"""``sweeper users``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sweeper.access import Accounts, Role
from sweeper.cli.output import Json, console, emit_json, safe, say, table
from sweeper.errors import AccessError
from sweeper.paths import Home

users = typer.Typer(no_args_is_help=True, help="Manage who may use the dashboard.")

_Name = Annotated[str, typer.Argument(help="Name of the user.", show_default=False)]
_Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]


@users.command()
def add(
    name: Annotated[
        str, typer.Argument(help="Name of the user; with --oidc their e-mail address.", show_default=False)
    ],
    role: Annotated[Role, typer.Option(help="Viewers see everything, and cannot change anything.")] = "viewer",
    oidc: Annotated[bool, typer.Option("--oidc", help="The user signs in by OIDC and has no password here.")] = False,
    password_stdin: _Stdin = False,
) -> None:
    """Add a user; asks for a password unless it is read from standard input."""
    if oidc and password_stdin:
        raise AccessError("--oidc and --password-stdin exclude each other: OIDC users have no password here")
    accounts = Accounts(Home.current())
    accounts.check_new(name, oidc=oidc)
    accounts.add(name, role, None if oidc else _password(password_stdin))
    say(f"{safe(name)} may use the dashboard as {role}" + (", signing in by OIDC" if oidc else ""))


@users.command("list")
def list_(as_json: Json = False) -> None:
    """List the users of the dashboard."""
    accounts = Accounts(Home.current()).all()
    found = [{"name": a.name, "role": a.role, "signs_in_by": "oidc" if a.by_oidc else "password"} for a in accounts]
    if as_json:
        emit_json(found)
    elif found:
        console().print(table(("user", "role", "signs in by"), (user.values() for user in found)))
    else:
        say("no users yet: the dashboard serves only this machine, without sign-in; `sweeper users add` adds one")


@users.command()
def remove(name: _Name) -> None:
    """Remove a user and sign them out at once."""
    Accounts(Home.current()).remove(name)
    say(f"{safe(name)} may no longer use the dashboard")


@users.command()
def password(name: _Name, password_stdin: _Stdin = False) -> None:
    """Change a user's password; they must sign in again."""
    accounts = Accounts(Home.current())
    accounts.with_password(name)
    accounts.set_password(name, _password(password_stdin))
    say(f"password of {safe(name)} changed")


def _password(from_input: bool) -> str:
    if from_input:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise AccessError("no terminal to ask for the password on; pass it with --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Repeat the password"))
