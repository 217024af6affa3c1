"""Adapter versions: files under the home, rows in the database, one production version a name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from sweeper.access.actor import current_actor
from sweeper.config.study import valid_name
from sweeper.errors import RegistryError
from sweeper.paths import Home
from sweeper.registry import files
from sweeper.registry.gate import GateResult, judge
from sweeper.registry.labels import valid_alias, valid_note, valid_tags
from sweeper.registry.lineage import Lineage, scores, trace
from sweeper.registry.rollback import PROMOTE, ROLL_BACK, before, was_forced, were_in_production
from sweeper.registry.stages import check_move
from sweeper.registry.version import AdapterVersion
from sweeper.store import Action, AdapterRecord, Database, Stage, did_you_mean
from sweeper.store.trial_files import require_whole

_VERSION_FOLDER = re.compile(r"\.?v(\d+)(\.tmp)?")
_KINDS = {Stage.PRODUCTION: PROMOTE, Stage.ARCHIVED: "archive"}
_ALL_ACTIONS = 1_000_000


class Registry:
    """The adapters of a home. Several processes may use it at once.

    Whatever changes a version is recorded with who did it, in the same transaction. ``actor`` is the operating system's
    user where it is left out.
    """

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._database = database

    def register(
        self,
        name: str,
        source: Path,
        *,
        study: str,
        trial: int,
        parent: int | None = None,
        actor: str | None = None,
    ) -> AdapterVersion:
        """Copy a trial's adapter into the registry as the next version of ``name``, a candidate.

        The lineage and the scores are those that the database holds of study and trial. A crash leaves no half
        version: the next call removes what it left behind.

        Args:
            name: The adapter's name; a study's name is usual.
            source: The folder that PEFT wrote.
            study: The study that trained it.
            trial: The number of the trial that trained it.
            parent: The version of ``name`` that it is made to replace.
            actor: Who does it.

        Raises:
            RegistryError: If the name, the folder or the parent cannot be used; then nothing is registered.
            ArtifactError: If the folder is the trial's own and its files are not those that the trial wrote.
            StudyStateError: If study or trial do not exist.
        """
        _check_name(name)
        trained = self._home.study(study).trial(trial)
        if source.absolute() == trained.adapter.absolute():
            require_whole(self._database, study, trained, "adapter")
        taken = files.check_source(source)
        lineage = trace(self._home, self._database, study, trial, parent)
        if parent is not None:
            self.get(name, parent)
        with self._locked(name):
            self._clean(name)
            version = self._database.adapters.last_version(name) + 1
            folder = self._home.adapter(name, version)
            hashes = files.copy(source, taken, folder)
            self._database.adapters.add(
                AdapterRecord(
                    name=name,
                    version=version,
                    study=study,
                    number=trial,
                    stage=Stage.CANDIDATE,
                    path=folder.relative_to(self._home.folder).as_posix(),
                    sha256=hashes[files.weights_name(hashes)],
                    bytes=files.size_bytes(folder),
                    files=hashes,
                    scores=scores(self._database, study, trial),
                    lineage=asdict(lineage),
                    created_at=datetime.now(UTC),
                ),
                _action(
                    actor, "register", name, version, f"{name} v{version} registered, from trial {trial} of {study}"
                ),
            )
        return self.get(name, version)

    def get(self, name: str, which: int | Stage | str | None = None) -> AdapterVersion:
        """Return a version of ``name``: by number, the newest of a stage, by alias, or the newest of all.

        Raises:
            RegistryError: If there is none; names the nearest, or the versions there are.
        """
        _check_name(name)
        records = self._database.adapters.all(name)
        if not records:
            known = {record.name for record in self._database.adapters.all()}
            raise RegistryError(f"no adapter {name!r} is registered{did_you_mean(name, known)}")
        known_as = self._database.adapters.aliases(name)
        number = known_as.get((name, which), which) if isinstance(which, str) else which
        fitting = [record for record in records if number is None or number in (record.version, record.stage)]
        if not fitting:
            wanted = f"version in stage {which}" if which in set(Stage) else f"version {which}"
            there = ", ".join(f"v{record.version} ({record.stage})" for record in records[-20:])
            aliases = f"; its aliases: {', '.join(alias for _, alias in known_as)}" if known_as else ""
            raise RegistryError(f"adapter {name!r} has no {wanted}; there are: {there}{aliases}")
        return self._version(fitting[-1], known_as)

    def all(self, name: str | None = None) -> tuple[AdapterVersion, ...]:
        """Return every version, or those of ``name``, by name and version."""
        aliases = self._database.adapters.aliases(name)
        return tuple(self._version(record, aliases) for record in self._database.adapters.all(name))

    def production(self, name: str) -> AdapterVersion | None:
        """Return the version that is in production, if any."""
        return next((found for found in self.all(name) if found.stage is Stage.PRODUCTION), None)

    def ancestors(self, version: AdapterVersion) -> tuple[str, ...]:
        """Return the registered adapters that a version was built on, nearest first, each ``NAME@VERSION`` once."""
        found: dict[str, None] = {}
        waiting = list(version.lineage.built_on)
        while waiting:
            reference = waiting.pop(0)
            if reference not in found:
                found[reference] = None
                name, _, number = reference.partition("@")
                waiting += self.get(name, int(number)).lineage.built_on
        return tuple(found)

    def judge(self, name: str, version: int) -> GateResult:
        """Return what the gate says of a version: whether it may go to production now.

        Raises:
            RegistryError: If there is no such version.
        """
        return self._judged(self.get(name, version))

    def opponent(self, version: AdapterVersion) -> AdapterVersion | None:
        """Return what the gate compares a version with: another one, or None for the version's own base model.

        It is the version in production. Where there is none, it is the last other one that was there and still exists,
        or else archiving the version in production would let a worse one in. Only where no other version ever was in
        production, and for the version in production itself, it is the base model.
        """
        production = self.production(version.name)
        if production is not None:
            return None if production.version == version.version else production
        there = {found.version: found for found in self.all(version.name) if found.version != version.version}
        were = were_in_production(self.history(version.name))
        return next((there[number] for number in were if number in there), None)

    def _judged(self, found: AdapterVersion) -> GateResult:
        opponent = self.opponent(found)
        was_last = opponent is not None and opponent.stage is not Stage.PRODUCTION
        return judge(self._database, found, opponent, was_last=was_last)

    def move(
        self,
        name: str,
        version: int,
        stage: Stage,
        *,
        actor: str | None = None,
        force: bool = False,
        reason: str = "",
    ) -> AdapterVersion:
        """Move a version to another stage; into production only through the gate, which archives the former one.

        Args:
            name: The adapter.
            version: Its version.
            stage: Where to.
            actor: Who does it.
            force: Overrule the gate; the record is marked where it would have refused.
            reason: Why, for the record.

        Raises:
            RegistryError: If there is no such version, the move is not allowed, the gate refuses it, or someone else
                moved it meanwhile.
        """
        found = self.get(name, version)
        if stage is Stage.DELETED:
            raise RegistryError(f"{found} cannot be moved to {stage}: delete it instead")
        check_move(str(found), found.stage, stage)
        because = f": {reason.strip()}" if reason.strip() else ""
        if stage is not Stage.PRODUCTION:
            self._change(found, stage, None, actor, _KINDS.get(stage, "move"), f"{found} is {stage} now{because}")
            return self.get(name, version)
        self.verify(name, version)
        former = self.production(name)
        judgement = self._judged(found)
        if not (judgement.passed or force):
            raise RegistryError(f"{found} stays {found.stage}: {judgement}; {_remedy(found, judgement)}")
        self._change(
            found,
            stage,
            former,
            actor,
            PROMOTE,
            f"{found} is in production now{'' if judgement.passed else ' against the gate'}{because}",
            forced=not judgement.passed,
            gate={**asdict(judgement), "in words": str(judgement)},
        )
        return self.get(name, version)

    def roll_back(
        self, name: str, version: int | None = None, *, actor: str | None = None, reason: str = ""
    ) -> AdapterVersion:
        """Bring back the version that was in production before the present one, at once: the emergency exit.

        The gate is not asked. A version that had been forced in against it comes back all the same, and the record is
        marked as forced again. Done twice it goes back twice.

        Args:
            name: The adapter.
            version: An archived version that was in production at any time before, where it is not to be the last.
            actor: Who does it.
            reason: Why, for the record.

        Raises:
            RegistryError: If no such version was in production before, or its files were changed since.
        """
        former, actions = self.production(name), self.history(name)
        target = before(actions, former.version if former else None) if version is None else version
        if target is None:
            raise RegistryError(
                f"no version of {name!r} was in production before {former or 'now'}; promote another one instead"
            )
        found = self.get(name, target)
        if target not in were_in_production(actions):
            raise RegistryError(f"{found} was never in production; promote it instead, through the gate")
        if found.stage is not Stage.ARCHIVED:
            raise RegistryError(f"{found} is {found.stage}; a rollback brings back an archived version only")
        self.verify(name, target)
        because = f": {reason.strip()}" if reason.strip() else ""
        forced = was_forced(actions, target)
        against = ", though it had been forced in against the gate" if forced else ""
        message = f"{found} is back in production{f' instead of {former}' if former else ''}{against}{because}"
        self._change(found, Stage.PRODUCTION, former, actor, ROLL_BACK, message, forced=forced)
        return self.get(name, target)

    def history(self, name: str) -> tuple[Action, ...]:
        """Return what was done to an adapter, by whom and when, the latest first.

        Raises:
            RegistryError: If the name can be no adapter's.
        """
        _check_name(name)
        return self._database.actions.all(adapter=name, limit=_ALL_ACTIONS)

    def set_alias(self, name: str, version: int, alias: str, *, actor: str | None = None) -> AdapterVersion:
        """Let an alias mean a version from now on, whichever it meant before.

        Raises:
            RegistryError: If there is no such version, or the word can be no alias.
        """
        found = self.get(name, version)
        valid_alias(alias)
        action = _action(actor, "alias", name, version, f"{alias} means {found} now", alias=alias)
        self._require(self._database.adapters.set_alias(name, alias, version, action), found)
        return self.get(name, version)

    def remove_alias(self, name: str, version: int, alias: str, *, actor: str | None = None) -> AdapterVersion:
        """Take an alias from a version.

        Raises:
            RegistryError: If there is no such version, or the alias does not mean it.
        """
        found = self.get(name, version)
        action = _action(actor, "unalias", name, version, f"{alias} does not mean {found} any more", alias=alias)
        if not self._database.adapters.remove_alias(name, alias, version, action):
            known = f"its aliases are {', '.join(found.aliases)}" if found.aliases else "it has no alias"
            raise RegistryError(f"{found} is not called {alias[:120]!r}; {known}")
        return self.get(name, version)

    def set_tags(self, name: str, version: int, tags: Iterable[str], *, actor: str | None = None) -> AdapterVersion:
        """Replace a version's tags.

        Raises:
            RegistryError: If there is no such version, or a tag is empty, too long or not printable.
        """
        found, chosen = self.get(name, version), tuple(valid_tags(tags))
        if chosen != found.tags:
            action = _action(actor, "tag", name, version, f"{found} is tagged {', '.join(chosen) or 'with nothing'}")
            self._require(self._database.adapters.describe(name, version, action, tags=list(chosen)), found)
        return self.get(name, version)

    def annotate(self, name: str, version: int, note: str, *, actor: str | None = None) -> AdapterVersion:
        """Replace a version's note.

        Raises:
            RegistryError: If there is no such version, or the note is too long.
        """
        found, text = self.get(name, version), valid_note(note.strip())
        if text != found.note:
            action = _action(actor, "note", name, version, f"note of {found}: {text or '(none)'}")
            self._require(self._database.adapters.describe(name, version, action, note=text), found)
        return self.get(name, version)

    def verify(self, name: str, version: int) -> AdapterVersion:
        """Check every file of a version against its checksum, and return the version.

        Raises:
            RegistryError: If there is no such version, or listing every file that is missing, changed or added.
        """
        found = self.get(name, version)
        wrong = files.differences(found.folder, found.files)
        if wrong:
            raise RegistryError(f"{found} is not as it was registered: {'; '.join(wrong)}; do not use it")
        return found

    def delete(self, name: str, version: int, *, actor: str | None = None) -> None:
        """Delete the files of an archived version. Its row stays, so that its number and lineage are never lost.

        Raises:
            RegistryError: If there is no such version, or it is not archived.
        """
        found = self.get(name, version)
        if found.stage is not Stage.ARCHIVED:
            raise RegistryError(f"{found} is {found.stage}; only an archived version can be deleted: archive it first")
        with self._locked(name):
            self._change(found, Stage.DELETED, None, actor, "delete", f"{found} is deleted")
            self._clean(name)

    def _change(
        self,
        found: AdapterVersion,
        stage: Stage,
        former: AdapterVersion | None,
        actor: str | None,
        kind: str,
        message: str,
        *,
        forced: bool = False,
        **data: Any,
    ) -> None:
        """Change one stage, and that of the ``former`` production version with it, unless someone else was faster.

        What was judged is what is changed: where another version came into production since, nothing is.
        """
        changes = {found.version: (found.stage, stage)}
        if former is not None:
            changes = {former.version: (former.stage, Stage.ARCHIVED)} | changes  # in this order: never two
            data["replaced"] = former.version
        action = _action(actor, kind, found.name, found.version, message, forced=forced, **data)
        action.data.update({"from": found.stage.value, "to": stage.value})  # type: ignore[union-attr]
        self._require(self._database.adapters.change_stages(found.name, changes, action), found)

    def _require(self, done: bool, found: AdapterVersion) -> None:
        if not done:
            raise RegistryError(
                f"{found} or the production version was moved by someone else just now: look, and try again"
            )

    def _clean(self, name: str) -> None:
        """Remove what crashes left behind: temporary folders, and folders of deleted versions."""
        given = self._database.adapters.last_version(name)
        deleted = set(range(1, given + 1)) - {record.version for record in self._database.adapters.all(name)}
        for folder in self._home.adapter(name, 1).parent.iterdir():
            match = _VERSION_FOLDER.fullmatch(folder.name)
            if match and not folder.is_symlink() and (match[2] or int(match[1]) in deleted):
                shutil.rmtree(folder)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Let one process at a time number, copy and clean the versions of a name."""
        folder = self._home.adapter(name, 1).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                yield
        except OSError as error:
            raise RegistryError(
                f"the registry cannot write {error.filename or folder} ({error.strerror}): "
                "check its permissions and the disk's space"
            ) from error

    def _version(self, record: AdapterRecord, aliases: dict[tuple[str, str], int]) -> AdapterVersion:
        return AdapterVersion(
            name=record.name,
            version=record.version,
            stage=record.stage,
            folder=self._home.adapter(record.name, record.version),
            sha256=record.sha256,
            bytes=record.bytes,
            files=record.files,
            scores=record.scores,
            lineage=Lineage(**record.lineage),
            created_at=record.created_at,
            aliases=tuple(alias for (of, alias), v in aliases.items() if (of, v) == (record.name, record.version)),
            tags=tuple(record.tags),
            note=record.note,
        )


def _action(
    actor: str | None, kind: str, name: str, version: int, message: str, *, forced: bool = False, **data: Any
) -> Action:
    return Action(
        at=datetime.now(UTC),
        actor=actor or current_actor(),
        kind=kind,
        message=message,
        adapter=name,
        version=version,
        forced=forced,
        data=data,
    )


def _remedy(found: AdapterVersion, judgement: GateResult) -> str:
    """Say what can be done about a refusal."""
    overrule = "overrule the gate with --force, which is marked in the record"
    if judgement.state == "not scored":
        return f"score it with `sweeper adapters compare {found.name} {found.version}`, or {overrule}"
    return f"promote a better version, or {overrule}"


def _check_name(name: str) -> None:
    try:
        valid_name(name)
    except ValueError as error:
        raise RegistryError(f"adapter name {name[:120]!r}: {error}") from error
