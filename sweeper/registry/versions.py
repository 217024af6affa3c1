"""The registered adapter versions of a home, and what the gate says of them."""

from __future__ import annotations

from sweeper.errors import RegistryError
from sweeper.paths import Home
from sweeper.registry import files
from sweeper.registry.gate import GateResult, judge
from sweeper.registry.labels import check_name
from sweeper.registry.lineage import Lineage
from sweeper.registry.stages import were_in_production
from sweeper.registry.version import AdapterVersion
from sweeper.store import Action, AdapterRecord, Database, Stage, did_you_mean

_ALL_ACTIONS = 1_000_000


class RegisteredVersions:
    """The adapters of a home, to read."""

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._database = database

    def get(self, name: str, which: int | Stage | str | None = None) -> AdapterVersion:
        """Return a version of ``name``: by number, the newest of a stage, by alias, or the newest of all.

        Raises:
            RegistryError: If there is none; names the nearest, or the versions there are.
        """
        check_name(name)
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

    def history(self, name: str) -> tuple[Action, ...]:
        """Return every action on an adapter, the latest first.

        Raises:
            RegistryError: If the name cannot be an adapter's.
        """
        check_name(name)
        return self._database.actions.all(adapter=name, limit=_ALL_ACTIONS)

    def verify(self, name: str, version: int) -> AdapterVersion:
        """Check every file of a version against its checksum, and return the version.

        Raises:
            RegistryError: If there is no such version; or listing every file that is missing, changed or added.
        """
        found = self.get(name, version)
        wrong = files.differences(found.folder, found.files)
        if wrong:
            raise RegistryError(f"{found} is not as it was registered: {'; '.join(wrong)}; do not use it")
        return found

    def judge(self, name: str, version: int) -> GateResult:
        """Return the gate's result for a version: whether it may go to production now.

        Raises:
            RegistryError: If there is no such version.
        """
        return self._judged(self.get(name, version))

    def _judged(self, found: AdapterVersion) -> GateResult:
        opponent = self.opponent(found)
        was_last = opponent is not None and opponent.stage is not Stage.PRODUCTION
        return judge(self._database, found, opponent, was_last=was_last)

    def opponent(self, version: AdapterVersion) -> AdapterVersion | None:
        """Return the version that the gate compares another with; None for its own base model.

        It is the version in production. If there is none, it is the last other one that was and still exists: otherwise
        archiving the version in production would let a worse one in. If no other version was ever in production, and
        for the version in production itself, it is the base model.
        """
        production = self.production(version.name)
        if production is not None:
            return None if production.version == version.version else production
        there = {found.version: found for found in self.all(version.name) if found.version != version.version}
        were = were_in_production(self.history(version.name))
        return next((there[number] for number in were if number in there), None)

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
