"""Many trials at once on one base model: every pass takes rows of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sweeper.config.trial import TrialSpec
from sweeper.executors.base_models import BaseModelCache
from sweeper.executors.context import StudyContext
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.packed.pack import Pack
from sweeper.packing.engine import Engine
from sweeper.packing.obstacles import obstacle_in_study
from sweeper.packing.probe import obstacle_in_base
from sweeper.training.base_model import BaseModel


class PackedExecutor:
    """Packs the trials that can share passes; a study whose trials cannot runs them one by one, and says why."""

    def __init__(self) -> None:
        self._bases = BaseModelCache()

    def base(self, context: StudyContext, spec: TrialSpec) -> BaseModel:
        """Return the base model of a trial, loading it unless it is the one before's."""
        return self._bases.of(context, spec)

    def run(self, context: StudyContext) -> None:
        """Run trials until the search or the budget ends, or the user asks to stop."""
        if context.stop.is_set:
            return
        obstacle = obstacle_in_study(context.config, context.search.space) or obstacle_in_base(self._shared(context))
        if obstacle is not None:
            context.listener.note(f"trials run one at a time: {obstacle}")
            InlineExecutor(self._bases).run(context)
            return
        with _engine(context, self._shared(context)) as engine:
            Pack(context, engine).run()

    def _shared(self, context: StudyContext) -> BaseModel:
        """Return the base that all trials stand on, of a study in which they do."""
        (model,), alternatives = context.models.values(), context.config.adapters
        return self._bases.get(context, model.config, next(iter(alternatives.values())).adapter)


@contextmanager
def _engine(context: StudyContext, base: BaseModel) -> Iterator[Engine]:
    engine = Engine(
        base, checkpointing=context.config.technique.checkpoints(next(context.config.variants({})), base.device)
    )
    try:
        yield engine
    finally:
        engine.close()
