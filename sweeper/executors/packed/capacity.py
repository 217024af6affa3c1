"""Capacity of a pack: trials at once and tokens in a pass, planned, tried, and changed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sweeper.config.executor import PackingExecutorConfig
from sweeper.executors.context import StudyContext
from sweeper.executors.micro_batches import KEEP_FREE, workload
from sweeper.packing.batch import Part
from sweeper.packing.engine import Engine
from sweeper.packing.planning import Plan, plan
from sweeper.packing.slot import Slot
from sweeper.presets.rules import corner_values
from sweeper.training.device import free_memory_bytes
from sweeper.training.micro_batch import is_out_of_memory


class PackCapacity:
    """The plan of a study's passes, lowered where memory runs out after all.

    Attributes:
        slots: Most trials at once.
        tokens: Most tokens in a pass.
    """

    def __init__(self, context: StudyContext, engine: Engine) -> None:
        self._context = context
        self._engine = engine
        self._device = engine.base.device
        (self._model,) = context.models.values()  # trials on several never share a pass
        self._free_bytes = int(free_memory_bytes(self._device) * KEEP_FREE)  # beside the base, before any trial
        self._asked = self._asked_slots()
        planned = self._planned()
        self.slots, self.tokens = planned.slots, planned.tokens

    def follow(self) -> None:
        """Take over the number of slots that the study has by now, if somebody changed it."""
        if (asked := self._asked_slots()) == self._asked:
            return
        self._asked = asked
        planned = self._planned()
        self.slots, self.tokens = planned.slots, min(self.tokens, planned.tokens)

    def try_out(self, slots: Sequence[Slot]) -> None:
        """Pass the longest rows that a pass may ever hold once, and lower the plan until they fit.

        Only where running out of memory does not end the process: on the CPU the estimate has to do.
        """
        if not slots or not self._outlives_lack_of_memory:
            return
        length = self._model.tokens_per_row
        longest = {"input_ids": [0] * length, "labels": [0] * length}
        while True:
            rows = max(1, self.tokens // length // len(slots))
            parts = [Part(slot.adapter, [longest] * min(rows, slot.micro_batch.rows)) for slot in slots]
            try:
                self._engine.train(parts, [1] * len(parts))
                return
            except Exception as error:
                if not is_out_of_memory(error) or rows == 1:
                    return  # smaller passes, then fewer slots, are found in the passes themselves
            finally:
                for slot in slots:
                    slot.restart_step()
            self.release()
            self.tokens = max(1, self.tokens // 2)

    def release(self) -> None:
        """Give cached blocks back, once the frames that held the tensors are gone."""
        if self._outlives_lack_of_memory:
            torch.cuda.empty_cache()

    @property
    def _outlives_lack_of_memory(self) -> bool:
        return self._device != "cpu"

    def _asked_slots(self) -> int | None:
        executor = self._context.config.executor
        if not isinstance(executor, PackingExecutorConfig) or executor.slots == "auto":
            return None
        return executor.slots

    def _planned(self) -> Plan:
        context = self._context
        rank = int(max(corner_values(context.search.space, "lora_rank")))
        adapter = next(iter(context.config.adapters.values())).adapter
        return plan(
            self._model.facts,
            workload(context, self._engine.base, self._model, adapter, rank),
            slots=self._asked,
            n_trials=math.ceil(context.config.search.n_trials / context.n_workers),
            free_bytes=self._free_bytes,
        )
