"""A trial to run next, and the queue entry that starts one again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from sweeper.config.parameters import ParameterValue
from sweeper.config.space import Range
from sweeper.search import attributes as attribute
from sweeper.search.samplers.cmaes import GENERATION
from sweeper.search.schedule import Entry
from sweeper.search.space import read_back
from sweeper.store.records import TrialKind


@dataclass(frozen=True)
class Candidate:
    """A trial to run next.

    Attributes:
        number: Its number in the study.
        parameters: Values by name, fixed ones included; a parameter whose condition does not hold is absent.
        seed: The trial's own seed.
        kind: Why it is run.
        confirms: The trial that it repeats, where it is a confirmation.
        restarts: The interrupted trial that it starts again, if any.
        order: The order by which a person asked for it, if any.
        clones: The trial whose configuration, changed by hand, it runs, if any.
        initial: The trial whose saved weights it starts from, if any.
    """

    number: int
    parameters: dict[str, ParameterValue]
    seed: int
    kind: TrialKind
    confirms: int | None = None
    restarts: int | None = None
    order: int | None = None
    clones: int | None = None
    initial: int | None = None


def candidate_of(trial: optuna.Trial | FrozenTrial, parameters: dict[str, ParameterValue]) -> Candidate:
    """Return what a trial of Optuna's asks for."""
    known = trial.user_attrs
    return Candidate(
        number=trial.number,
        parameters=parameters,
        seed=known[attribute.SEED],
        kind=TrialKind(known[attribute.KIND]),
        confirms=known.get(attribute.CONFIRMS),
        restarts=known.get(attribute.RESTARTS),
        order=known.get(attribute.ORDER),
        clones=known.get(attribute.CLONES),
        initial=known.get(attribute.INITIAL),
    )


def restarted(old: FrozenTrial, space: Mapping[str, Range]) -> Entry | None:
    """Return the queue entry that starts a trial again; None for one that is not sweeper's."""
    known = old.user_attrs
    if attribute.KIND not in known:
        return None
    try:
        read_back(old.params, space)
        params = old.params
    except KeyError:  # its process died while sampling; the same ordinal samples the same again
        params = old.system_attrs.get("fixed_params", {})
    return Entry(
        TrialKind(known[attribute.KIND]),
        known[attribute.ORDINAL],
        params,
        confirms=known.get(attribute.CONFIRMS),
        restarts=old.number,
        order=known.get(attribute.ORDER),
        clones=known.get(attribute.CLONES),
        initial=known.get(attribute.INITIAL),
        deaths=known.get(attribute.DEATHS),
        system_attrs={name: value for name, value in old.system_attrs.items() if name == GENERATION},
    )
