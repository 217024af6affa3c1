"""The orders of people, obeyed by the processes that run the study: between two steps, in the order they were given.

Training and scoring call ``process_orders`` once a step. An order is answered when it is done: one that a
killed process leaves without an answer is done by the process that goes on, and each of them may be done twice
without harm. What is queued carries its order's number, so that it is queued once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

from sweeper.config.orders import budget_of, cloned, differing, values_in_space, with_budget
from sweeper.config.pipeline import name_to_resume
from sweeper.config.study import StudyConfig
from sweeper.config.trial import Outcome
from sweeper.errors import StudyStateError, SweeperError, UserError
from sweeper.executors.context import StudyContext
from sweeper.executors.lifecycle.claims import abandoned, stopped
from sweeper.executors.lifecycle.recorder import prune_paused, read_result
from sweeper.executors.lifecycle.recovery import reclaim
from sweeper.faults import passing
from sweeper.store import Order, OrderKind, OrderState, StudyState, stored_config
from sweeper.store.trial_files import require_weights
from sweeper.training.trial import BY_HAND

log = logging.getLogger(__name__)

_GLANCE_S = 0.2
"""How often a study that stands still looks for orders."""

_FOR_THE_PROCESS = (OrderKind.PAUSE, OrderKind.RESUME, OrderKind.STOP)
"""Orders to the process that runs; one that goes on with the study is not meant."""

_WORK = (OrderKind.ENQUEUE, OrderKind.CLONE, OrderKind.BUDGET)
"""Orders after which there may be more to train."""


class MoreToTrain(Exception):
    """The final scoring was given up for work that somebody ordered; it is done anew afterwards."""


def process_orders(context: StudyContext) -> None:
    """Do what people have asked since the last call; where they pause the study, return when it is to go on.

    What workers left that have ended since then is put in order first.
    """
    if context.membership.news.is_set():
        context.pending_orders.changed |= reclaim(context) > 0  # one that left nothing is no reason to score anew
    _take_orders(context)
    if context.pending_orders.paused:
        _stand_still(context)


def has_work(context: StudyContext) -> bool:
    """Tell whether there is something to train for a study whose search has ended."""
    waiting = context.database.orders.waiting(context.config.name)
    return context.search.awaits_ordered() or any(order.kind in _WORK for order in waiting)


def more_to_train(context: StudyContext) -> bool:
    """Tell whether trials wait, or more may be begun than before, now that something has changed."""
    search = context.search
    return search.awaits_ordered() or bool(stopped(context)) or abandoned(context) or search.remaining() > 0


def refuse_outdated(context: StudyContext, since: datetime | None = None) -> None:
    """Refuse the orders that were meant for a process which is no more: those from before ``since``, or all.

    Where other workers live, they are meant.
    """
    if not context.membership.alone():
        return
    for order in context.database.orders.waiting(context.config.name):
        if order.kind in _FOR_THE_PROCESS and (since is None or order.at < since):
            context.answer(order, OrderState.REFUSED, "the study had come to its end, or its process had, before it")


def _take_orders(context: StudyContext) -> None:
    """Obey what waits, and of what another worker has obeyed since the last call what concerns every worker."""
    context.keep_alive()
    asked = context.pending_orders
    news = context.database.orders.news(context.config.name, after=asked.seen)
    waiting = {order.id for order in news if order.state is OrderState.WAITING}
    asked.ending = {number: order for number, order in asked.ending.items() if order.id in waiting}
    for order in news:
        if context.stop.is_set:
            return
        if order.state is OrderState.WAITING:
            _obey_one(context, order)
        elif order.state is OrderState.DONE and order.id > asked.seen:
            _FOLLOW.get(order.kind, _look_for_work)(context)
        asked.seen = max(asked.seen, order.id)


def _obey_one(context: StudyContext, order: Order) -> None:
    try:
        with context.alone():  # of several workers one obeys
            if context.database.orders.get(context.config.name, order.id).state is OrderState.WAITING:
                _OBEY[order.kind](context, order)
            else:
                _FOLLOW.get(order.kind, _look_for_work)(context)
    except UserError as error:
        context.answer(order, OrderState.REFUSED, str(error))
    except SweeperError:
        raise
    except Exception as error:
        if passing(error):
            raise  # the disk or the database is at fault; the order is obeyed when they are back
        log.exception("order %d cannot be carried out", order.id)
        context.answer(order, OrderState.REFUSED, f"cannot be carried out: {type(error).__name__}: {error}")


def _stand_still(context: StudyContext) -> None:
    """Take no step until the study is to go on or to stop; Ctrl-C is heard too."""
    asked, name, begun = context.pending_orders, context.config.name, time.monotonic()
    whole = name_to_resume(context.paths)
    context.database.studies.set_state(name, StudyState.PAUSED)
    context.listener.note(f"paused: `sweeper resume {whole}` goes on, `sweeper stop {whole}` or Ctrl-C stops")
    while asked.paused and not context.stop.is_set:
        time.sleep(_GLANCE_S)
        _take_orders(context)
    asked.paused = False
    asked.paused_s += time.monotonic() - begun
    if not context.stop.is_set:
        context.database.studies.set_state(name, StudyState.RUNNING)


def _pause(context: StudyContext, order: Order) -> None:
    if context.pending_orders.paused:
        raise StudyStateError("the study is paused already")
    context.pending_orders.paused = True
    context.answer(order, OrderState.DONE, "takes no step until it is resumed")


def _resume(context: StudyContext, order: Order) -> None:
    if not context.pending_orders.paused:
        raise StudyStateError("the study is not paused")
    context.pending_orders.paused = False
    context.answer(order, OrderState.DONE, "goes on")


def _stop(context: StudyContext, order: Order) -> None:
    context.stop.set()
    context.answer(order, OrderState.DONE, "stops after this step")


def _follow_pause(context: StudyContext) -> None:
    context.pending_orders.paused = True


def _follow_resume(context: StudyContext) -> None:
    context.pending_orders.paused = False


def _follow_stop(context: StudyContext) -> None:
    context.stop.set()


def _look_for_work(context: StudyContext) -> None:
    context.pending_orders.changed = True


def _follow_budget(context: StudyContext) -> None:
    """Go on by the budget as another worker has stored it."""
    _go_by(context, stored_config(context.database.studies.get(context.config.name)))


def _go_by(context: StudyContext, changed: StudyConfig) -> None:
    context.config = changed
    context.search.change_budget(changed.search)
    context.listener.budget_changed(changed)
    context.pending_orders.changed = True


def _stop_trial(context: StudyContext, order: Order) -> None:
    """End a trial: one that waits at once, one that runs when it reports next, which is when the order is answered.

    Of a trial that was begun again under another number, that one is meant.
    """
    assert order.number is not None
    number = context.search.begun_again_as(order.number)
    if number in context.pending_orders.running:
        context.pending_orders.ending.setdefault(number, order)
        return
    if context.search.is_queued(number) or number in context.membership.elsewhere():
        return  # it is ended when it has begun, by the worker that runs it
    trial = context.database.trials.get(context.config.name, number)
    paths = context.paths.trial(number)
    if number in context.search.interrupted() and paths.is_frozen:
        if read_result(paths) is None:
            return  # its process died as it froze the trial: it is ended when it has been taken up
        prune_paused(context, number, BY_HAND)
    elif (trial.outcome, trial.reason) != (Outcome.PRUNED, BY_HAND):
        again = f", begun again as trial {number}," if number != order.number else ""
        raise StudyStateError(f"trial {order.number}{again} does not run: {trial.outcome}")
    context.answer(order, OrderState.DONE, BY_HAND)


def _enqueue(context: StudyContext, order: Order) -> None:
    values = values_in_space(context.search.space, order.data["parameters"])
    number = context.search.order(order.id, values)
    context.pending_orders.changed = True
    context.answer(order, OrderState.DONE, f"runs next, as trial {number}")


def _clone(context: StudyContext, order: Order) -> None:
    original, changes, space = order.number, order.data["changes"], context.search.space
    assert original is not None
    before = context.search.values(original)
    values = cloned(space, before, changes)
    initial = original if order.data["from_weights"] else None
    if initial is not None:
        changed = differing(space, before, values)
        require_weights(context.database, context.config.name, context.paths.trial(original), changed)
    number = context.search.order(order.id, values, clones=original, initial=initial)
    context.pending_orders.changed = True
    context.answer(order, OrderState.DONE, f"runs next, as trial {number}")


def _budget(context: StudyContext, order: Order) -> None:
    """Change the budget here and where it is stored, so that a resume and whoever looks go by it."""
    name = context.config.name
    changed = with_budget(context.config, order.data)
    before, after = budget_of(context.config), budget_of(changed)
    text = ", ".join(f"{each} {before[each]} -> {after[each]}" for each in after if before[each] != after[each])
    if text:
        context.database.studies.set_config(name, changed.model_dump(mode="json"))
        context.database.events.add(name, "budget", text, data={"before": before, "after": after})
        _go_by(context, changed)
    context.answer(order, OrderState.DONE, text or "nothing to change: it is so already")


_OBEY: dict[OrderKind, Callable[[StudyContext, Order], None]] = {
    OrderKind.PAUSE: _pause,
    OrderKind.RESUME: _resume,
    OrderKind.STOP: _stop,
    OrderKind.STOP_TRIAL: _stop_trial,
    OrderKind.ENQUEUE: _enqueue,
    OrderKind.CLONE: _clone,
    OrderKind.BUDGET: _budget,
}

_FOLLOW: dict[OrderKind, Callable[[StudyContext], None]] = {
    OrderKind.PAUSE: _follow_pause,
    OrderKind.RESUME: _follow_resume,
    OrderKind.STOP: _follow_stop,
    OrderKind.BUDGET: _follow_budget,
}
"""What a worker does when another has obeyed; after the other orders there may be more to begin."""
