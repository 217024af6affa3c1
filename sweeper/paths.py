"""Every path of a home, a study and a trial."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sweeper.database_url import Address, PostgresUrl
from sweeper.errors import DatabaseError
from sweeper.files.atomic import write_atomically

STORAGE = "SWEEPER_STORAGE"
"""The environment variable that names the database of a home without a binding."""


@dataclass(frozen=True)
class TrialPaths:
    """Every path of one trial."""

    folder: Path

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return int(self.folder.name)

    @property
    def spec(self) -> Path:
        """The trial's ``TrialSpec`` as JSON."""
        return self.folder / "spec.json"

    @property
    def result(self) -> Path:
        """Its ``TrialResult`` as JSON, written atomically; absent until it has ended."""
        return self.folder / "result.json"

    @property
    def adapter(self) -> Path:
        """The PEFT adapter of the best evaluation; absent for a pruned or failed trial."""
        return self.folder / "adapter"

    @property
    def frozen(self) -> Path:
        """The whole state of a stopped or paused trial; absent once it has ended."""
        return self.folder / "frozen"

    def error(self, rank: int) -> Path:
        """The traceback of a failed trial, by process if several train it."""
        return self.folder / (f"error-{rank}.txt" if rank else "error.txt")

    def log(self, rank: int) -> Path:
        """The terminal output of a trial's process."""
        return self.folder / f"process-{rank}.log"

    @property
    def is_frozen(self) -> bool:
        """Whether the trial can continue from where it was stopped or paused."""
        return self.frozen.is_dir()


@dataclass(frozen=True)
class StudyPaths:
    """Every path of one study."""

    folder: Path

    @property
    def home(self) -> Path:
        """The folder of the home that it is in."""
        return self.folder.parent.parent

    @property
    def data(self) -> Path:
        """The prepared splits as JSONL."""
        return self.folder / "data"

    @property
    def resolved(self) -> Path:
        """The study as resolved on this machine: model folder, rows, lengths."""
        return self.folder / "resolved.json"

    def hang(self, worker: str) -> Path:
        """The stack traces of a worker that hung; empty while it runs, or if something else killed it."""
        return self.home / "hangs" / f"{self.folder.name}-{worker}.txt"  # open while it runs: not on a disk of trials

    @property
    def resume_log(self) -> Path:
        """The terminal output of a resume that the dashboard started."""
        return self.folder / "resume.log"

    def worker_log(self, name: str) -> Path:
        """The terminal output of a worker of the study."""
        return self.folder / "workers" / f"{name}.log"

    @property
    def pipeline(self) -> Path:
        """The study file of a pipeline, and where it came from; absent for a study of one stage."""
        return self.folder / "pipeline.json"

    @property
    def report(self) -> Path:
        """The final report as Markdown."""
        return self.folder / "report.md"

    def trial(self, number: int) -> TrialPaths:
        """Return the paths of trial ``number``."""
        return TrialPaths(self.folder / "trials" / f"{number:05d}")


@dataclass(frozen=True)
class Home:
    """The folder that holds the database, the studies and the registered adapters."""

    folder: Path

    @classmethod
    def current(cls) -> Home:
        """Return the home named by ``SWEEPER_HOME``, else ``.sweeper`` in the current folder."""
        return cls(Path(os.environ.get("SWEEPER_HOME") or ".sweeper").absolute())

    @property
    def database_file(self) -> Path:
        """The SQLite file of a home that is not bound to another database."""
        return self.folder / "sweeper.db"

    @property
    def binding(self) -> Path:
        """Holds the URL of the database that this home is bound to; private to its owner, absent for SQLite."""
        return self.folder / "storage"

    @property
    def database(self) -> Address:
        """The one database of this home: its binding, else ``SWEEPER_STORAGE``, else the SQLite file.

        Raises:
            DatabaseError: If ``SWEEPER_STORAGE`` is not a URL, or names another database than this home has.
        """
        asked = os.environ.get(STORAGE)
        bound = self.bound
        if not asked:
            return bound or self.database_file
        server = PostgresUrl.parse(asked)
        if bound is None and self.database_file.exists():
            raise DatabaseError(
                f"the studies of {self.folder} are in {self.database_file.name}, and {STORAGE} names {server}: bring "
                f"them over with `sweeper migrate-storage`, unset {STORAGE}, or set SWEEPER_HOME to another folder"
            )
        if bound is not None and bound.identity != server.identity:
            raise DatabaseError(
                f"{self.folder} is bound to {bound} and {STORAGE} names {server}: unset {STORAGE}, set SWEEPER_HOME "
                f"to another folder, or delete {self.binding} if that is where its studies are"
            )
        return server  # the same database, perhaps with other credentials

    @property
    def bound(self) -> PostgresUrl | None:
        """The database this home is bound to, if any."""
        try:
            return PostgresUrl.parse(self.binding.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (DatabaseError, OSError, UnicodeDecodeError) as error:
            raise DatabaseError(f"{self.binding}, which names the database of this home: {error}") from error

    def bind(self, server: PostgresUrl) -> None:
        """Bind this home to a database on a server; only the owner may read its URL."""
        write_atomically(self.binding, f"{server.written}\n", private=True)

    @property
    def dashboard_users(self) -> Path:
        """The users of the dashboard, with hashed passwords; absent if there are none."""
        return self.folder / "dashboard-users.json"

    @property
    def dashboard_key(self) -> Path:
        """The key that signs the dashboard's sessions."""
        return self.folder / "dashboard-key"

    @property
    def dashboard_secrets(self) -> Path:
        """The settings of an OIDC provider, as Streamlit takes them; absent if there is none."""
        return self.folder / "dashboard-secrets.toml"

    def study(self, name: str) -> StudyPaths:
        """Return the paths of study ``name`` (a validated name: no separators)."""
        return StudyPaths(self.folder / "studies" / name)

    def start(self, name: str, version: int) -> Path:
        """Return the folder of a registered adapter version merged into its base, for studies that start from it."""
        return self.folder / "starts" / name / f"v{version}"

    def adapter(self, name: str, version: int) -> Path:
        """Return the folder of a registered adapter version."""
        return self.folder / "adapters" / name / f"v{version}"


def cache_folder() -> Path:
    """Return the per-user cache of converted models and probed sizes (``SWEEPER_CACHE``, else XDG's)."""
    explicit = os.environ.get("SWEEPER_CACHE")
    if explicit:
        return Path(explicit).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweeper"
