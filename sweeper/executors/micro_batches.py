"""Micro-batch sizes: estimated, tried, and remembered between studies."""

from __future__ import annotations

import json
from pathlib import Path

from sweeper.config.adapter import Adapter
from sweeper.config.trial import Outcome, TrialResult, TrialSpec
from sweeper.executors.context import StudyContext, StudyModel
from sweeper.files.atomic import write_json
from sweeper.models.memory import Workload, largest_micro_batch
from sweeper.paths import cache_folder
from sweeper.training.base_model import BaseModel
from sweeper.training.device import free_memory_bytes

KEEP_FREE = 0.8
"""Part of the free memory that a plan may use: on the CPU running out ends the process."""


class MicroBatches:
    """Plans micro-batches; remembers per model, adapter, length, rank and device what fitted and what did not."""

    def __init__(self, context: StudyContext, base: BaseModel) -> None:
        self._context = context
        self._base = base
        self._file = cache_folder() / "micro_batches.json"

    def plan(self, spec: TrialSpec) -> int:
        """Return the rows per forward pass to begin a trial with; 0 where a single row cannot fit.

        On the CPU the estimate decides, because there is no running out of memory and going on. On a GPU the whole
        batch is tried unless it is known not to fit: there the trial halves it until it does.
        """
        batch_size = spec.rows_per_step
        if spec.micro_batch is not None:
            return min(spec.micro_batch, batch_size)
        if spec.device == "cpu":
            return self._estimated(spec, batch_size)
        fits, fails = self._known().get(self._key(spec), (0, None))
        return fits if fails is not None and fits and batch_size >= fails else batch_size

    def learn(self, spec: TrialSpec, begun_with: int, result: TrialResult) -> None:
        """Remember what a trial on a GPU found out."""
        ran = result.outcome in (Outcome.COMPLETE, Outcome.PRUNED)
        if spec.device == "cpu" or not ran or result.micro_batch is None:
            return
        known = self._known()
        fits, fails = known.get(self._key(spec), (0, None))
        fits = max(fits, result.micro_batch) if result.micro_batch == begun_with else result.micro_batch
        if result.micro_batch < begun_with:
            fails = min(fails or begun_with, begun_with)
        write_json(self._file, {**known, self._key(spec): (fits, fails)})

    def _estimated(self, spec: TrialSpec, batch_size: int) -> int:
        chosen, model = spec.hyperparameters, self._context.model_of(spec)
        work = workload(self._context, self._base, model, spec.adapter, chosen.lora_rank, chosen.target_modules)
        free = int(free_memory_bytes(spec.device) * KEEP_FREE)
        return largest_micro_batch(model.facts, work, batch_size=batch_size, free_bytes=free, loaded=True)

    def _key(self, spec: TrialSpec) -> str:
        model = self._context.model_of(spec)
        parts = (
            model.fingerprint[:16],
            spec.adapter.model_dump_json(),
            str(self._base.dtype),
            model.tokens_per_row,
            spec.hyperparameters.lora_rank,
            spec.technique.gradient_checkpointing,
            spec.device,
        )
        return " ".join(map(str, parts))

    def _known(self) -> dict[str, tuple[int, int | None]]:
        return _read(self._file)


def workload(
    context: StudyContext,
    base: BaseModel,
    model: StudyModel,
    adapter: Adapter,
    lora_rank: int,
    target_modules: str | tuple[str, ...] = "all-linear",
) -> Workload:
    """Return what a trial of the study trains, as far as memory is concerned."""
    return Workload(
        adapter=adapter,
        lora_rank=lora_rank,
        target_modules=target_modules,
        tokens_per_row=model.tokens_per_row,
        dtype=str(base.dtype).removeprefix("torch."),
        gradient_checkpointing=context.config.technique.checkpoints(adapter, base.device),
        attention_matrix=base.attention == "eager",
    )


def _read(file: Path) -> dict[str, tuple[int, int | None]]:
    """Return what is remembered; a damaged file is only a forgotten memory."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return {str(key): (int(fits), None if fails is None else int(fails)) for key, (fits, fails) in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
