"""The registry of adapters: files in the home, rows in the database, one production version per name."""

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
from sweeper.errors import RegistryError
from sweeper.files.atomic import size_of
from sweeper.files.temporary import remove_leftovers
from sweeper.registry import files
from sweeper.registry.gate import GateResult
from sweeper.registry.labels import check_name, valid_alias, valid_note, valid_tags
from sweeper.registry.lineage import scores, trace
from sweeper.registry.stages import PROMOTE, ROLL_BACK, before, check_move, was_forced, were_in_production
from sweeper.registry.version import AdapterVersion
from sweeper.registry.versions import RegisteredVersions
from sweeper.store import Action, AdapterRecord, Stage
from sweeper.store.trial_files import require_whole

_VERSION_FOLDER = re.compile(r"v(\d+)")
_KINDS = {Stage.PRODUCTION: PROMOTE, Stage.ARCHIVED: "archive"}


class Registry(RegisteredVersions):
    """The adapters of a home, to read and change. Several processes may use it at once.

    Every change of a version is recorded with the person who made it, in the same transaction. ``actor`` is by default
    the operating system's user.
    """

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
        """Copy the adapter in ``source``, as PEFT wrote it, into the registry as the next version of ``name``.

        It becomes a candidate, with the lineage and scores of its study and trial in the database; ``parent`` is the
        version that it is to replace. A crash leaves no partial version: the next call removes its leftovers.

        Raises:
            RegistryError: If the name, the folder or the parent cannot be used; then nothing is registered.
            ArtifactError: If the folder is the trial's own and its files have changed since.
            StudyStateError: If study or trial do not exist.
        """
        check_name(name)
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
                    bytes=size_of(folder),
                    files=hashes,
                    scores=scores(self._database, study, trial),
                    lineage=asdict(lineage),
                    created_at=datetime.now(UTC),
                ),
                _action(
                    actor, "register", name, version, f"{name} v{version} registered from trial {trial} of {study}"
                ),
            )
        return self.get(name, version)

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

        ``force`` overrules the gate; the record is marked if it would have refused. ``reason`` is for the record.

        Raises:
            RegistryError: If there is no such version, the move is not allowed, the gate refuses it, or someone else
                moved it in the meantime.
        """
        found = self.get(name, version)
        if stage is Stage.DELETED:
            raise RegistryError(f"{found} cannot be moved to {stage}: delete it instead")
        check_move(str(found), found.stage, stage)
        if stage is not Stage.PRODUCTION:
            kind, message = _KINDS.get(stage, "move"), f"{found} is now {stage}{_because(reason)}"
            self._change(found, stage, None, actor, kind, message)
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
            f"{found} is now in production{'' if judgement.passed else ' against the gate'}{_because(reason)}",
            forced=not judgement.passed,
            gate={**asdict(judgement), "in words": str(judgement)},
        )
        return self.get(name, version)

    def roll_back(
        self, name: str, version: int | None = None, *, actor: str | None = None, reason: str = ""
    ) -> AdapterVersion:
        """Put the version back that was in production before the present one, at once: the emergency exit.

        The gate is bypassed. If the version had been forced in against it, the record is marked as forced again.
        Rolling back twice goes back twice. ``version`` can be any archived version that was in production before.

        Raises:
            RegistryError: If no such version was in production before, or its files have changed since.
        """
        former, actions = self.production(name), self.history(name)
        target = before(actions, former.version if former else None) if version is None else version
        if target is None:
            raise RegistryError(
                f"no version of {name!r} was in production before {former or 'now'}; promote one instead"
            )
        found = self.get(name, target)
        if target not in were_in_production(actions):
            raise RegistryError(f"{found} was never in production; promote it instead, through the gate")
        if found.stage is not Stage.ARCHIVED:
            raise RegistryError(f"{found} is {found.stage}; a rollback brings back an archived version only")
        self.verify(name, target)
        forced = was_forced(actions, target)
        against = ", though it had been forced in against the gate" if forced else ""
        instead = f" instead of {former}" if former else ""
        message = f"{found} is back in production{instead}{against}{_because(reason)}"
        self._change(found, Stage.PRODUCTION, former, actor, ROLL_BACK, message, forced=forced)
        return self.get(name, target)

    def set_alias(self, name: str, version: int, alias: str, *, actor: str | None = None) -> AdapterVersion:
        """Point an alias at a version, wherever it pointed before.

        Raises:
            RegistryError: If there is no such version, or the word cannot be an alias.
        """
        found = self.get(name, version)
        valid_alias(alias)
        action = _action(actor, "alias", name, version, f"{alias} now means {found}", alias=alias)
        self._require(self._database.adapters.set_alias(name, alias, version, action), found)
        return self.get(name, version)

    def remove_alias(self, name: str, version: int, alias: str, *, actor: str | None = None) -> AdapterVersion:
        """Remove an alias from a version.

        Raises:
            RegistryError: If there is no such version, or the alias does not mean it.
        """
        found = self.get(name, version)
        action = _action(actor, "unalias", name, version, f"{alias} no longer means {found}", alias=alias)
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

    def delete(self, name: str, version: int, *, actor: str | None = None) -> None:
        """Delete the files of an archived version. Its row stays, so its number and lineage are never lost.

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
        """Change one stage, and archive the ``former`` production version, unless someone else was faster.

        Nothing is changed if another version has come into production since the gate judged.
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
                f"{found} or the production version was just moved by someone else: check, then try again"
            )

    def _clean(self, name: str) -> None:
        """Remove what crashes left behind: temporary folders, and folders of deleted versions."""
        remove_leftovers(self._home.adapter(name, 1).parent)
        given = self._database.adapters.last_version(name)
        deleted = set(range(1, given + 1)) - {record.version for record in self._database.adapters.all(name)}
        for folder in self._home.adapter(name, 1).parent.iterdir():
            match = _VERSION_FOLDER.fullmatch(folder.name)
            if match and not folder.is_symlink() and int(match[1]) in deleted:
                shutil.rmtree(folder)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock under which the versions of a name are numbered, copied and cleaned up."""
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


def _because(reason: str) -> str:
    return f": {reason.strip()}" if reason.strip() else ""


def _remedy(found: AdapterVersion, judgement: GateResult) -> str:
    """Return what can be done about a refusal."""
    overrule = "overrule the gate with --force, which is marked in the record"
    if judgement.state == "not scored":
        return f"score it with `sweeper adapters compare {found.name} {found.version}`, or {overrule}"
    return f"promote a better version, or {overrule}"
