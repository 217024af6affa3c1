"""The trials under way on one base model: filling their slots, passing their rows, evaluating and ending them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft import set_peft_model_state_dict

from sweeper.config.trial import Decision, Outcome, TrialResult
from sweeper.errors import LeaseLost, OutOfMemoryError
from sweeper.executors.context import StudyContext
from sweeper.executors.inline import budget_spent, infeasible
from sweeper.executors.lifecycle.claims import abandoned, claim, others_train, stopped, wait
from sweeper.executors.lifecycle.integrity import can_go_on, cannot_begin
from sweeper.executors.lifecycle.orders import process_orders
from sweeper.executors.lifecycle.recorder import Recorder, drop, give_up, prune_paused
from sweeper.executors.lifecycle.recovery import begin_unreadable_again, reclaim
from sweeper.executors.lifecycle.trial_spec import specification
from sweeper.executors.micro_batches import MicroBatches
from sweeper.executors.packed.capacity import PackCapacity
from sweeper.executors.packed.evaluation import Evaluating
from sweeper.executors.packed.running import Running, share
from sweeper.files.atomic import discard
from sweeper.packing.engine import Engine
from sweeper.packing.frozen import freeze, is_slot, thaw
from sweeper.packing.slot import Slot
from sweeper.search.candidate import Candidate
from sweeper.training.adapters import cast_adapter, peft_config
from sweeper.training.device import reset_peak_memory
from sweeper.training.latency import milliseconds_per_token
from sweeper.training.micro_batch import is_out_of_memory
from sweeper.training.trial import BY_HAND, PRUNED, STOPPED
from sweeper.training.trial_output import TrialOutput, TrialProgress


class Pack:
    """The trials under way, and the passes they share."""

    def __init__(self, context: StudyContext, engine: Engine) -> None:
        self._context = context
        self._engine = engine
        self._base = engine.base
        self._planner = MicroBatches(context, engine.base)
        self._room = PackCapacity(context, engine)
        self._evaluating = Evaluating(context, engine, self._room, self._fail)
        self._running: dict[int, Running] = {}
        self._may_begin = True
        self._begun = context.pending_orders.clock()
        self._checkpointed = time.monotonic()
        self._before = sum(trial.train_seconds for trial in context.database.trials.all(context.config.name))

    def run(self) -> None:
        """Keep every slot filled, evaluate what is due, pass rows; until nothing is left or the user stops."""
        most, listener = self._room.slots, self._context.listener
        listener.note(f"up to {most} trial{'s' * (most > 1)} at a time on one base model")
        if waiting := stopped(self._context):
            listener.note(f"{len(waiting)} stopped trial(s) go on where they were")
        reset_peak_memory(self._base.device)
        try:
            self._obey_orders()
            self._fill()
            self._room.try_out([running.slot for running in self._running.values()])
            while not self._context.stop.is_set:
                others = not self._running and others_train(self._context)
                self._fill()
                if self._running:
                    self._evaluate_due()
                    self._pass_rows()
                    self._checkpoint()
                elif others:
                    self._may_begin = True
                    wait()
                elif abandoned(self._context):
                    reclaim(self._context)
                    self._may_begin = True
                elif not self._end_paused():
                    return
                self._obey_orders()
        except Exception:
            self._freeze_all()  # what one trial found at fault costs the others nothing
            raise
        self._freeze_all()

    def _obey_orders(self) -> None:
        """Do what people have asked; with fewer slots the youngest trials wait on disk until one is free."""
        process_orders(self._context)
        if not self._context.pending_orders.changed:
            return
        self._context.pending_orders.changed, self._may_begin = False, True
        self._room.follow()
        while len(self._running) > self._room.slots and not self._context.stop.is_set:
            self._freeze(self._youngest(), Outcome.INTERRUPTED, "waits for a slot")

    # ---- filling slots

    def _fill(self) -> None:
        """Give every free slot a trial, as long as there is one to begin.

        Where there is none, that stays so until a trial has ended or was evaluated, and the search is not asked before.
        """
        while self._may_begin and len(self._running) < self._room.slots and not self._context.stop.is_set:
            self._may_begin = self._begin_one()

    def _begin_one(self) -> bool:
        """Begin a trial that was ordered, one that was stopped, one that is promoted, or a new one, if there is any."""
        candidate = claim(self._context, self._choose)
        if candidate is None:
            return False
        with self._dropping(candidate.number):
            self._context.fetch_trial(candidate.number)
            if self._context.paths.trial(candidate.number).is_frozen:
                self._thaw(candidate)
            else:
                self._start(candidate)
        return True

    def _choose(self) -> Candidate | None:
        search = self._context.search
        if candidate := search.ask_ordered():
            return candidate
        begin_unreadable_again(self._context, is_slot)
        if waiting := stopped(self._context):
            return search.take_up(waiting[0])
        spent = self._spent()
        if spent >= 1:
            return None
        if spent < 1 - self._context.config.search.confirm and (promotable := search.promotable()):
            return search.take_up(promotable[0])
        return search.ask(spent)

    def _youngest(self) -> Running:
        return self._running[max(self._running)]

    def _spent(self) -> float:
        planned = sum(running.slot.spec.hyperparameters.epochs for running in self._running.values())
        return budget_spent(self._context, self._before + self._context.pending_orders.clock() - self._begun, planned)

    def _start(self, candidate: Candidate) -> None:
        if candidate.initial is not None:
            self._context.fetch_trial(candidate.initial)
        base, spec = self._base, specification(self._context, candidate)
        recorder = Recorder(self._context, candidate, spec)
        recorder.start()
        if failed := cannot_begin(self._context, spec):
            recorder.end(failed)
            return
        rows, output = self._planner.plan(spec), TrialOutput(spec, base)
        if rows == 0:
            recorder.end(infeasible(spec, base))
            return
        output.begin()
        try:
            slot = Slot.new(spec, base, rows)
        except Exception as error:
            recorder.end(output.failed(TrialProgress(), error))
            return
        self._run(slot, recorder, rows)

    def _thaw(self, candidate: Candidate) -> None:
        """Go on with a frozen trial, unless what is on disk of it is damaged."""
        if not can_go_on(self._context, candidate.number):
            return
        spec = specification(self._context, candidate)
        slot, recorder = thaw(spec, self._base), Recorder(self._context, candidate, spec)
        recorder.take_up(slot.progress.total_steps, slot.progress.seconds)
        self._run(slot, recorder, slot.micro_batch.rows)

    def _run(self, slot: Slot, recorder: Recorder, planned: int) -> None:
        self._engine.prepare(slot.adapter)
        self._running[slot.number] = Running(slot, recorder, planned)

    @contextmanager
    def _dropping(self, number: int) -> Iterator[None]:
        """Drop the trial if the block finds that it was reassigned; fail it alone if its bookkeeping does."""
        try:
            yield
        except LeaseLost:
            self._running.pop(number, None)
            self._may_begin = True
            drop(self._context, number)
        except Exception as error:
            give_up(self._context, number, error)
            self._running.pop(number, None)
            self._may_begin = True

    def _checkpoint(self) -> None:
        """Put the running trials on disk now and then: what kills this process costs no more than what came after."""
        if time.monotonic() - self._checkpointed < self._context.config.executor.checkpoint_s:
            return
        for running in list(self._running.values()):
            with self._dropping(running.slot.number):
                running.recorder.flush()
                freeze(running.slot)
                self._context.keep_trial(running.slot.number)
        self._checkpointed = time.monotonic()

    # ---- passing rows

    def _pass_rows(self) -> None:
        """Take the next rows of every slot through the model, in as few passes as memory allows."""
        for group in self._groups():
            still = [running for running in group if running.slot.number in self._running]
            if still:  # a pass before this one may have put one of them on disk
                self._pass(still)

    def _groups(self) -> list[list[Running]]:
        groups: list[list[Running]] = []
        room = 0
        for running in self._running.values():
            tokens = running.slot.part().tokens
            if tokens > room:
                groups.append([])
                room = self._room.tokens
            groups[-1].append(running)
            room -= tokens
        return groups

    def _pass(self, group: Sequence[Running]) -> None:
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
        share(group, [part.tokens for part in parts], time.monotonic() - begun)
        for running, loss in zip(group, losses, strict=True):
            self._take(running, loss)

    def _take(self, running: Running, loss: float) -> None:
        try:
            step = running.slot.take(loss)
        except Exception as error:
            self._fail(running, error)
            return
        if step is not None:
            with self._dropping(running.slot.number):
                self._obey(running, running.report(step))

    def _shrink(self, group: Sequence[Running], error: Exception) -> None:
        """Make passes smaller after one did not fit: fewer slots in one, then fewer rows, then fewer slots at all."""
        self._room.release()
        if len(group) > 1:
            self._room.tokens = max(1, sum(running.slot.part().tokens for running in group) // 2)
            return
        try:
            group[0].slot.micro_batch.halve(error)
            group[0].slot.restart_step()
        except OutOfMemoryError as too_large:
            if len(self._running) == 1:
                self._fail(group[0], too_large)
                return
            self._room.slots = len(self._running) - 1
            self._freeze(self._youngest(), Outcome.INTERRUPTED, "waits for memory")

    # ---- evaluating

    def _evaluate_due(self) -> None:
        """Evaluate every trial that has come to an evaluation, all in the same passes."""
        evaluated = self._evaluating.measure(list(self._running.values()))
        for running, metrics in evaluated:
            with self._dropping(running.slot.number):
                running.announce(metrics)
        for running, metrics in evaluated:
            if running.slot.number in self._running:
                with self._dropping(running.slot.number):
                    self._judge(running, metrics)
            self._may_begin = True  # what is said of one trial may promote another

    def _judge(self, running: Running, metrics: dict[str, float]) -> None:
        slot = running.slot
        decision = running.report(metrics)
        if decision is not Decision.INTERRUPT:
            slot.evaluated = slot.progress.steps
        if decision is Decision.CONTINUE and slot.has_ended:
            self._complete(running)
        else:
            self._obey(running, decision)

    # ---- ending

    def _obey(self, running: Running, decision: Decision) -> None:
        progress = running.slot.progress
        match decision:
            case Decision.PRUNE:
                self._end(running, running.slot.output.result(progress, Outcome.PRUNED, PRUNED))
            case Decision.END:
                self._end(running, running.slot.output.result(progress, Outcome.PRUNED, BY_HAND))
            case Decision.PAUSE:
                done = progress.steps / progress.total_steps
                self._freeze(running, Outcome.PAUSED, f"waits at {done:.0%}: {PRUNED} so far")
            case Decision.INTERRUPT:
                self._freeze(running, Outcome.INTERRUPTED, STOPPED)

    def _complete(self, running: Running) -> None:
        """Save the adapter of the best evaluation the way PEFT saves it."""
        slot, base = running.slot, self._base
        spec, best = slot.spec, slot.output.best
        running.recorder.require_held()
        try:
            with base.adapted(peft_config(spec.adapter, spec.hyperparameters), spec.seed) as model:
                cast_adapter(base, model)
                set_peft_model_state_dict(model, best.weights)
                timed = "latency" in spec.evaluation.objectives
                latency = milliseconds_per_token(model, base.tokenizer) if timed else None
                result = slot.output.complete(slot.progress, model, latency)
        except Exception as error:
            self._fail(running, error)
            return
        self._end(running, result)

    def _fail(self, running: Running, error: Exception) -> None:
        with self._dropping(running.slot.number):
            running.recorder.require_held()
            self._end(running, running.slot.output.failed(running.slot.progress, error))

    def _freeze(self, running: Running, outcome: Outcome, reason: str) -> None:
        """Put a trial on disk, to go on from there."""
        with self._dropping(running.slot.number):
            running.recorder.require_held()
            freeze(running.slot)
            self._end(running, running.slot.output.result(running.slot.progress, outcome, reason))

    def _freeze_all(self) -> None:
        for running in list(self._running.values()):
            with self._dropping(running.slot.number):
                running.recorder.require_held()
                freeze(running.slot)  # all of them, before the database is told of any: it may be what is at fault
        for running in list(self._running.values()):
            with self._dropping(running.slot.number):
                result = running.slot.output.result(running.slot.progress, Outcome.INTERRUPTED, STOPPED)
                self._end(running, result)

    def _end(self, running: Running, result: TrialResult) -> None:
        """Record how a trial ended, and free its slot."""
        slot = running.slot
        self._may_begin = True
        del self._running[slot.number]
        self._planner.learn(slot.spec, running.planned_micro_batch, result)
        running.recorder.end(result)
        if not result.outcome.is_open:
            discard(slot.output.paths.frozen)

    def _end_paused(self) -> bool:
        """Prune the trials that still wait at their rungs when nothing else is left; return whether there were any."""
        with self._context.alone():
            paused = self._context.search.paused()
            for number in paused:
                self._may_begin = True
                prune_paused(self._context, number, f"{PRUNED}, and never promoted")
            return bool(paused)
