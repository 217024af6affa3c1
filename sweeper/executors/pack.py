"""The trials under way on one base model: filling their slots, passing their rows, evaluating and ending them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

import torch
from peft import set_peft_model_state_dict

from sweeper.config.executor import PackedExecutor as PackedConfig
from sweeper.config.trial import Decision, Outcome, TrialResult
from sweeper.errors import OutOfMemoryError
from sweeper.evaluation.validation import task_metric
from sweeper.executors.base import StudyContext
from sweeper.executors.inline import budget_spent, infeasible
from sweeper.executors.micro_batches import KEEP_FREE, MicroBatches, workload
from sweeper.executors.recorder import Recorder, prune_paused
from sweeper.executors.specification import specification
from sweeper.packing.adapter import SlotAdapter
from sweeper.packing.batch import Part, Row
from sweeper.packing.engine import Engine
from sweeper.packing.frozen import freeze, thaw
from sweeper.packing.planning import Plan, plan
from sweeper.packing.slot import Slot
from sweeper.presets.rules import corner_values
from sweeper.search.study import Candidate
from sweeper.training.adapters import cast_adapter, peft_config
from sweeper.training.device import free_memory_bytes, reset_peak_memory
from sweeper.training.latency import milliseconds_per_token
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.reporting import perplexity, require_finite
from sweeper.training.results import Ledger, Progress
from sweeper.training.trial import PRUNED, STOPPED


class _Running:
    """A slot and what it reports to."""

    def __init__(self, slot: Slot, recorder: Recorder, planned: int) -> None:
        self.slot = slot
        self.recorder = recorder
        self.planned_micro_batch = planned

    def announce(self, metrics: dict[str, float]) -> None:
        self.recorder.announce(self._with_progress(metrics))

    def report(self, metrics: dict[str, float]) -> Decision:
        return self.recorder(self.slot.progress.steps, self._with_progress(metrics))

    def _with_progress(self, metrics: dict[str, float]) -> dict[str, float]:
        progress = self.slot.progress
        return {**metrics, "progress": progress.steps / progress.total_steps}


class Pack:
    """The trials under way, and the passes they share."""

    def __init__(self, context: StudyContext, engine: Engine) -> None:
        self._context = context
        self._engine = engine
        self._base = engine.base
        (self._model,) = context.models.values()  # trials on several never share a pass
        self._planner = MicroBatches(context, engine.base)
        self._evaluate_text = task_metric(
            engine.base, context.data.validation, context.config.evaluation, context.config.technique
        )
        self._running: dict[int, _Running] = {}
        self._may_begin = True
        self._stopped = [n for n in context.search.interrupted() if n not in context.search.paused()]
        self._begun = time.monotonic()
        self._before = sum(trial.train_seconds for trial in context.database.trials.all(context.config.name))
        self._plan = self._planned()

    def run(self) -> None:
        """Keep every slot filled, evaluate what is due, pass rows; until nothing is left or the user stops."""
        most, listener = self._plan.slots, self._context.listener
        listener.note(f"up to {most} trial{'s' * (most > 1)} at a time on one base model")
        if self._stopped:
            listener.note(f"{len(self._stopped)} stopped trial(s) go on where they were")
        reset_peak_memory(self._base.device)
        try:
            self._fill()
            self._try_plan()
            while not self._context.stop.is_set:
                self._fill()
                if self._running:
                    self._evaluate_due()
                    self._pass_rows()
                elif not self._end_paused():
                    return
        except Exception:
            self._freeze_all()  # what one trial found at fault costs the others nothing
            raise
        self._freeze_all()

    # ---- filling slots

    def _fill(self) -> None:
        """Give every free slot a trial, as long as there is one to begin.

        Where there is none, that stays so until a trial has ended or was evaluated, and the search is not asked before.
        """
        while self._may_begin and len(self._running) < self._plan.slots and not self._context.stop.is_set:
            self._may_begin = self._begin_one()

    def _begin_one(self) -> bool:
        """Begin a trial that was stopped, one that is promoted, or a new one; return whether there was any."""
        search = self._context.search
        if self._stopped:
            self._thaw(self._stopped.pop(0))
        elif (spent := self._spent()) >= 1:
            return False
        elif spent < 1 - self._context.config.search.confirm and (promotable := search.promotable()):
            self._thaw(promotable[0])
        elif candidate := search.ask(spent):
            self._start(candidate)
        else:
            return False
        return True

    def _spent(self) -> float:
        planned = sum(running.slot.spec.hyperparameters.epochs for running in self._running.values())
        return budget_spent(self._context, self._before + time.monotonic() - self._begun, planned)

    def _start(self, candidate: Candidate) -> None:
        base, spec = self._base, specification(self._context, candidate)
        recorder = Recorder(self._context, candidate, spec)
        recorder.start()
        rows, ledger = self._planner.plan(spec), Ledger(spec, base)
        if rows == 0:
            recorder.end(infeasible(spec, base))
            return
        ledger.begin()
        try:
            slot = Slot.new(spec, base, rows)
        except Exception as error:
            recorder.end(ledger.failed(Progress(), error))
            return
        self._run(slot, recorder, rows)

    def _thaw(self, number: int) -> None:
        """Go on with a frozen trial."""
        candidate = self._context.search.take_up(number)
        spec = specification(self._context, candidate)
        slot, recorder = thaw(spec, self._base), Recorder(self._context, candidate, spec)
        recorder.take_up(slot.progress.total_steps, slot.progress.seconds)
        self._run(slot, recorder, slot.micro_batch.rows)

    def _run(self, slot: Slot, recorder: Recorder, planned: int) -> None:
        self._engine.prepare(slot.adapter)
        self._running[slot.number] = _Running(slot, recorder, planned)

    def _try_plan(self) -> None:
        """Pass the longest rows that a pass may ever hold once, and lower the plan until they fit.

        Only where running out of memory does not end the process: on the CPU the estimate has to do.
        """
        if not self._running or not self._outlives_lack_of_memory:
            return
        slots, length = [running.slot for running in self._running.values()], self._model.tokens_per_row
        longest = {"input_ids": [0] * length, "labels": [0] * length}
        while True:
            rows = max(1, self._plan.tokens // length // len(slots))
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
            self._release()
            self._plan.tokens = max(1, self._plan.tokens // 2)

    # ---- passing rows

    def _pass_rows(self) -> None:
        """Take the next rows of every slot through the model, in as few passes as memory allows."""
        for group in self._groups():
            still = [running for running in group if running.slot.number in self._running]
            if still:  # a pass before this one may have put one of them on disk
                self._pass(still)

    def _groups(self) -> list[list[_Running]]:
        groups: list[list[_Running]] = []
        room = 0
        for running in self._running.values():
            tokens = running.slot.part().tokens
            if tokens > room:
                groups.append([])
                room = self._plan.tokens
            groups[-1].append(running)
            room -= tokens
        return groups

    def _pass(self, group: Sequence[_Running]) -> None:
        """Take one part of every slot of a group through the model together.

        A pass that fails is undone. Where memory ran out it is tried again smaller; otherwise each slot passes alone,
        so that the one at fault ends and the others go on.
        """
        parts = [running.slot.part() for running in group]
        begun = time.monotonic()
        try:
            losses = self._engine.train(parts, [running.slot.items for running in group])
        except Exception as error:
            for running in group:
                running.slot.restart_step()
            if is_out_of_memory(error):
                self._shrink(group, error.with_traceback(None))  # the traceback holds the tensors that did not fit
            elif len(group) > 1:
                for running in group:
                    if running.slot.number in self._running:
                        self._pass([running])
            else:
                self._fail(group[0], error)
            return
        self._share(group, [part.tokens for part in parts], time.monotonic() - begun)
        for running, loss in zip(group, losses, strict=True):
            self._take(running, loss)

    def _take(self, running: _Running, loss: float) -> None:
        try:
            step = running.slot.take(loss)
        except Exception as error:
            self._fail(running, error)
            return
        if step is not None:
            self._obey(running, running.report(step))

    def _share(self, group: Sequence[_Running], tokens: Sequence[int], seconds: float) -> None:
        """Charge every trial its part of the time."""
        for running, own in zip(group, tokens, strict=True):
            running.slot.progress.seconds += seconds * own / sum(tokens)

    def _shrink(self, group: Sequence[_Running], error: Exception) -> None:
        """Make passes smaller after one did not fit: fewer slots in one, then fewer rows, then fewer slots at all."""
        self._release()
        if len(group) > 1:
            self._plan.tokens = max(1, sum(running.slot.part().tokens for running in group) // 2)
            return
        try:
            group[0].slot.micro_batch.halve(error)
            group[0].slot.restart_step()
        except OutOfMemoryError as too_large:
            if len(self._running) == 1:
                self._fail(group[0], too_large)
                return
            self._plan.slots = len(self._running) - 1
            youngest = self._running[max(self._running)]
            self._freeze(youngest, Outcome.INTERRUPTED, "waits for memory")
            self._stopped.insert(0, youngest.slot.number)

    @property
    def _outlives_lack_of_memory(self) -> bool:
        return self._base.device != "cpu"

    def _release(self) -> None:
        """Give cached blocks back, once the frames that held the tensors are gone."""
        if self._outlives_lack_of_memory:
            torch.cuda.empty_cache()

    # ---- evaluating

    def _evaluate_due(self) -> None:
        """Evaluate every trial that has come to an evaluation, all in the same passes."""
        groups: dict[int, list[_Running]] = {}
        for running in self._running.values():
            if running.slot.is_due:  # the rows are one object for all trials that have the same
                groups.setdefault(id(running.slot.validation), []).append(running)
        evaluated = [one for due in groups.values() for one in self._measure_together(due)]
        for running, metrics in evaluated:
            running.announce(metrics)
        for running, metrics in evaluated:
            self._judge(running, metrics)
            self._may_begin = True  # what is said of one trial may promote another

    def _judge(self, running: _Running, metrics: dict[str, float]) -> None:
        slot = running.slot
        decision = running.report(metrics)
        if decision is not Decision.INTERRUPT:
            slot.evaluated = slot.progress.steps
        if decision is Decision.CONTINUE and slot.has_ended:
            self._complete(running)
        else:
            self._obey(running, decision)

    def _measure_together(self, due: Sequence[_Running]) -> list[tuple[_Running, dict[str, float]]]:
        """Evaluate trials with the same validation rows in the same passes; where that fails, each alone."""
        begun = time.monotonic()
        try:
            losses = self._mean_losses([running.slot.adapter for running in due], list(due[0].slot.validation))
        except Exception as error:
            if len(due) > 1:
                return [one for running in due for one in self._measure_together([running])]
            self._fail(due[0], error)
            return []
        self._share(due, [1] * len(due), time.monotonic() - begun)
        measured = [(running, self._measure(running, loss)) for running, loss in zip(due, losses, strict=True)]
        return [(running, metrics) for running, metrics in measured if metrics is not None]

    def _mean_losses(self, adapters: Sequence[SlotAdapter], rows: Sequence[Row]) -> list[float]:
        tokens = self._plan.tokens
        while True:
            try:
                return self._engine.mean_losses(adapters, rows, tokens)
            except Exception as error:
                if not is_out_of_memory(error) or tokens == 1:
                    raise
            self._release()
            tokens = max(1, tokens // 2)

    def _measure(self, running: _Running, loss: float) -> dict[str, float] | None:
        """Return all metrics of an evaluation, or None where the trial has ended over it."""
        slot, begun = running.slot, time.monotonic()
        try:
            metrics = {"eval_loss": loss, "perplexity": perplexity(loss)}
            require_finite(metrics, slot.progress.steps)  # no text is generated with weights that are no numbers
            if self._evaluate_text is not None:
                with self._engine.alone(slot.adapter) as model:
                    metrics |= self._evaluate_text(model)
            slot.offer(metrics)
        except Exception as error:
            self._fail(running, error)
            return None
        slot.progress.seconds += time.monotonic() - begun
        return metrics

    # ---- ending

    def _obey(self, running: _Running, decision: Decision) -> None:
        progress = running.slot.progress
        match decision:
            case Decision.PRUNE:
                self._end(running, running.slot.ledger.result(progress, Outcome.PRUNED, PRUNED))
            case Decision.PAUSE:
                done = progress.steps / progress.total_steps
                self._freeze(running, Outcome.PAUSED, f"waits at {done:.0%}: {PRUNED} so far")
            case Decision.INTERRUPT:
                self._freeze(running, Outcome.INTERRUPTED, STOPPED)

    def _complete(self, running: _Running) -> None:
        """Save the adapter of the best evaluation the way PEFT saves it."""
        slot, base = running.slot, self._base
        spec, best = slot.spec, slot.ledger.best
        try:
            with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
                cast_adapter(base, model)
                set_peft_model_state_dict(model, best.weights)
                timed = "latency" in spec.evaluation.objectives
                latency = milliseconds_per_token(model, base.tokenizer) if timed else None
                result = slot.ledger.complete(slot.progress, model, latency)
        except Exception as error:
            self._fail(running, error)
            return
        self._end(running, result)

    def _fail(self, running: _Running, error: Exception) -> None:
        self._end(running, running.slot.ledger.failed(running.slot.progress, error))

    def _freeze(self, running: _Running, outcome: Outcome, reason: str) -> None:
        """Put a trial on disk, to go on from there."""
        freeze(running.slot)
        self._end(running, running.slot.ledger.result(running.slot.progress, outcome, reason))

    def _freeze_all(self) -> None:
        for running in self._running.values():
            freeze(running.slot)  # all of them, before the database is told of any: it may be what is at fault
        for running in list(self._running.values()):
            result = running.slot.ledger.result(running.slot.progress, Outcome.INTERRUPTED, STOPPED)
            self._end(running, result)

    def _end(self, running: _Running, result: TrialResult) -> None:
        """Record how a trial ended, and free its slot."""
        slot = running.slot
        self._may_begin = True
        del self._running[slot.number]
        self._planner.learn(slot.spec, running.planned_micro_batch, result)
        running.recorder.end(result)
        if not result.outcome.is_open:
            shutil.rmtree(slot.ledger.paths.frozen, ignore_errors=True)

    def _end_paused(self) -> bool:
        """Prune the trials that still wait at their rungs when nothing else is left; return whether there were any."""
        paused = self._context.search.paused()
        for number in paused:
            self._may_begin = True
            prune_paused(self._context, number, f"{PRUNED}, and never promoted")
        return bool(paused)

    def _planned(self) -> Plan:
        context, base = self._context, self._base
        config = context.config
        assert isinstance(config.executor, PackedConfig)
        rank = int(max(corner_values(context.search.space, "lora_rank")))
        adapter = next(iter(config.adapters.values())).adapter
        work = workload(context, base, self._model, adapter, rank)
        return plan(
            self._model.facts,
            work,
            slots=None if config.executor.slots == "auto" else config.executor.slots,
            n_trials=config.search.n_trials,
            free_bytes=int(free_memory_bytes(base.device) * KEEP_FREE),
        )
