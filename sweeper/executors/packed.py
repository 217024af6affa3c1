"""Many trials at once on one base model: every pass takes rows of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sweeper.config.checkpointing import checkpoints
from sweeper.executors.base import StudyContext
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.pack import Pack
from sweeper.packing.engine import Engine
from sweeper.packing.obstacles import obstacle_in_study
from sweeper.packing.probe import obstacle_in_base
from sweeper.training.base_model import BaseModel


class PackedExecutor:
    """Packs the trials that can share passes; a study whose trials cannot runs them one by one, and says why."""

    def __init__(self) -> None:
        self._inline = InlineExecutor()

    def base(self, context: StudyContext) -> BaseModel:
        """Return the base model, loading it the first time."""
        return self._inline.base(context)

    def run(self, context: StudyContext) -> None:
        """Run trials until the search or the budget ends, or the user asks to stop."""
        if context.stop.is_set:
            return
        obstacle = obstacle_in_study(context.config, context.search.space) or obstacle_in_base(self.base(context))
        if obstacle is not None:
            context.listener.note(f"trials run one at a time: {obstacle}")
            self._inline.run(context)
            return
        with _engine(context, self.base(context)) as engine:
            Pack(context, engine).run()


@contextmanager
def _engine(context: StudyContext, base: BaseModel) -> Iterator[Engine]:
    engine = Engine(base, checkpointing=checkpoints(context.config.technique, context.config.adapter, base.device))
    try:
        yield engine
    finally:
        engine.close()
