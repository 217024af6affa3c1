"""Every error sweeper raises, on one page.

    SweeperError                    something sweeper can explain; exit code 1
    ├── UserError                   the input is at fault; exit code 2
    │   ├── StudyFileError          the study file: all faults at once, each with file:line
    │   ├── DataError               a data file, a split or a column
    │   ├── RewardError             a reward that cannot be found, or that failed
    │   ├── ModelNotFoundError      a base model that no source knows (lists the places searched)
    │   ├── ModelError              a base model or adapter folder that cannot be used
    │   ├── HardwareError           a device or part this machine does not have
    │   ├── DatabaseError           a database that is not one, or is from another version
    │   ├── StudyStateError         a study that does not exist, exists already, or is running elsewhere
    │   ├── RegistryError           an adapter name, version or move that is not allowed
    │   ├── ArtifactError           a file of a trial that is missing, damaged, or not the one that was written
    │   ├── AccessError             a user of the dashboard, a password or a private file that is not acceptable
    │   ├── BackupError             a backup that cannot be written, or whose place is taken
    │   └── ExportError             an export that cannot be written or does not verify
    ├── StudyInterrupted            the user asked to stop; `sweeper resume` continues; exit code 130
    ├── LeaseLost                   the trial was reassigned to another worker; this one can no longer store it
    └── TrialError                  one trial failed; the search continues without it
        ├── OutOfMemoryError        it does not fit, even at micro-batch 1
        └── DivergedError           its loss is no longer a finite number

All take plain arguments, so that they survive pickling between processes.
"""

from __future__ import annotations

from dataclasses import dataclass


class SweeperError(Exception):
    """Something went wrong that sweeper can explain; its text says what, where, and what to do."""

    exit_code = 1


class UserError(SweeperError):
    """The input is at fault, not sweeper; nothing was changed."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a study file.

    Attributes:
        field: Dotted path of the field, for example ``search.space.learning_rate.low``; empty for the file.
        message: What is wrong and what is allowed.
        line: Line in the file, from 1; None if the fault has no place.
        hint: What to do, for example the nearest valid name.
    """

    field: str
    message: str
    line: int | None = None
    hint: str | None = None

    def render(self, source: str) -> str:
        """Return the fault as ``file:line: field: message``, with the hint on a line below."""
        place = source if self.line is None else f"{source}:{self.line}"
        text = f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"
        return text if self.hint is None else f"{text}\n    {self.hint}"


class StudyFileError(UserError):
    """A study file with one or more faults, all listed."""

    def __init__(self, source: str, faults: tuple[Fault, ...]) -> None:
        super().__init__(source, faults)
        self.source = source
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(fault.render(self.source) for fault in self.faults)


class DataError(UserError):
    """A data file, a split or a column that cannot be used."""


class RewardError(UserError):
    """A reward function or reward model that cannot be found, or that failed."""


class ModelNotFoundError(UserError):
    """A base model that no source knows; the text lists the places searched."""


class ModelError(UserError):
    """A base model or adapter folder that was found but cannot be used."""


class HardwareError(UserError):
    """A device or an optional part that this machine does not have."""


class DatabaseError(UserError):
    """A database that cannot be opened, is not sweeper's, or is from a newer version."""


class StudyStateError(UserError):
    """A study that does not exist, exists already, or is being run by another process."""


class RegistryError(UserError):
    """An adapter name, version or move that the registry does not allow."""


class ArtifactError(UserError):
    """A file of a trial that is missing, damaged, or not the one that was written."""


class BackupError(UserError):
    """A backup that cannot be written, or whose place is taken."""


class ExportError(UserError):
    """An export that cannot be written, or that does not verify after writing."""


class AccessError(UserError):
    """A user of the dashboard, a password or a private file that is not acceptable."""


class StudyInterrupted(SweeperError):
    """The user asked to stop; everything finished is kept, and `sweeper resume` continues."""

    exit_code = 130


class LeaseLost(SweeperError):
    """A trial was reassigned to another worker: this one missed its heartbeats, and can no longer store it."""


class TrialError(SweeperError):
    """One trial failed; the search continues without it."""


class OutOfMemoryError(TrialError):
    """The trial does not fit in memory, even at micro-batch 1."""


class DivergedError(TrialError):
    """The loss of the trial is no longer a finite number."""
