"""The Control page: pause, resume or stop a study, stop a trial, queue a configuration, change the budget."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import streamlit as st

from sweeper_dashboard.data import control as data
from sweeper_dashboard.data import home, studies
from sweeper_dashboard.views import editing, parts

REFRESH_S = 2
SHOWN = 16
"""Open trials that are listed with a button each."""

COLUMNS = 3
"""Parameters per row."""

SAMPLED = "chosen by the sampler"
_PLAIN = re.compile(r"[A-Za-z0-9]+([_.-][A-Za-z0-9]+)*")
_STOPPING = "asked to stop"
_FORMS = ("Run a configuration", "Clone a trial", "Budget and slots")


def page() -> None:
    """Show the study in the address, or the latest, and take orders."""
    st.title("Control")
    with parts.explained():
        name = parts.chosen_study(studies.study_names(), "clone")
        if name is None:
            return
        if editing.refusal():
            st.info("You can see everything here, but only editors can give orders.", icon=":material/visibility:")
        editing.outcome()
        alive = data.control(name).live
        stopping = st.session_state.pop(_STOPPING, False)
        if stopping:
            _confirm_stop(name)
        refresh_s = REFRESH_S if alive and not stopping else None  # a refresh could swallow a click in the dialog
        st.fragment(_standing, run_every=refresh_s)(name, alive)
        _forms(name)
        st.fragment(_orders, run_every=refresh_s)(name)


def _order(name: str, kind: data.OrderKind, number: int | None = None, **asked: Any) -> None:
    editing.act(lambda actor: data.order(name, kind, actor=actor, number=number, data=asked))


@st.dialog("Stop the study?", on_dismiss="rerun")
def _confirm_stop(name: str) -> None:
    st.write(
        "The study stops after the current step. Trials that share passes are saved; resuming continues from there."
    )
    st.text(home.clean(name))
    stop, keep = st.columns(2)
    if stop.button("Stop the study", type="primary", icon=":material/stop:", width="stretch"):
        _order(name, data.OrderKind.STOP)
    if keep.button("Keep running", width="stretch"):
        st.rerun()


def _standing(name: str, was_alive: bool) -> None:
    with parts.explained():
        found = data.control(name)
        if found.live != was_alive:
            st.rerun(scope="app")
        parts.metrics(
            {
                "State": found.state.value,
                "Runner": "alive" if found.runs else "none",
                "Trials": f"{found.done} of {found.n_trials}",
                "Orders waiting": str(found.waiting),
            }
        )
        _buttons(name, found)
        if found.failed:
            st.error("Resuming the study from here failed. Its output ended with:")
            parts.command(found.failed)
        _under_way(name, found)


def _buttons(name: str, found: data.Control) -> None:
    row = st.container(horizontal=True)
    running = found.runs and not found.paused
    closed = found.live and not found.paused
    starts = None if found.live else "Starts a process that resumes the study."
    with row:
        if editing.button("Pause", icon=":material/pause:", ready=running, width=140, key="pause"):
            _order(name, data.OrderKind.PAUSE)
        if editing.button(
            "Resume", icon=":material/play_arrow:", ready=not closed, help=starts, width=140, key="resume"
        ):
            editing.act(lambda actor: data.resume(name, actor=actor))
        asked = editing.button("Stop", icon=":material/stop:", ready=found.runs, width=140, key="stop")
    if asked and editing.refusal() is None:
        st.session_state[_STOPPING] = True
        st.rerun(scope="app")
    if found.runs:
        st.caption("Orders take effect after the current step. A paused study keeps its memory and its place.")
    elif found.live:
        st.caption("A process that resumes this study is starting, or another stage of it is running.")
    else:
        st.caption("No process is running this study. Orders wait until it is resumed.")


def _under_way(name: str, found: data.Control) -> None:
    if not found.under_way:
        return
    st.subheader("Open trials")
    for trial in found.under_way[:SHOWN]:
        with st.container(border=True):
            number, progress, text, stop = st.columns([1, 2, 4, 1.4], vertical_alignment="center")
            number.markdown(f"**Trial {trial.number}**")
            progress.progress(trial.progress)
            text.text(f"{trial.state}  {trial.text}")
            with stop:
                if editing.button(
                    "Stop",
                    icon=":material/close:",
                    key=f"stop {trial.number}",
                    help="Prunes the trial at its next step; the others continue.",
                    width="stretch",
                ):
                    _order(name, data.OrderKind.STOP_TRIAL, trial.number)
    if len(found.under_way) > SHOWN:
        st.caption(f"{len(found.under_way) - SHOWN} more, which `sweeper stop STUDY --trial N` can stop.")


def _forms(name: str) -> None:
    st.subheader("Give an order")
    default = _FORMS[1] if "clone" in st.query_params else _FORMS[0]
    for tab, show in zip(st.tabs(_FORMS, default=default), (_enqueue, _clone, _budget), strict=True):
        with tab, parts.explained():
            show(name)


def _enqueue(name: str) -> None:
    st.caption("Runs next, in addition to the study's own trials. The sampler chooses the values left empty.")
    fields = data.fields(name)
    if not fields:
        st.info("This study searches nothing: every trial has the same configuration.")
        return
    asked = _values(fields, {}, f"enqueue {name}")
    if _submit("Run configuration", f"enqueue {name} submit", ready=bool(asked)):
        _order(name, data.OrderKind.ENQUEUE, parameters=asked)


def _clone(name: str) -> None:
    numbers = data.trial_numbers(name)
    if not numbers:
        st.info("There are no trials to clone yet.")
        return
    wanted = st.query_params.get("clone", "")
    place = numbers.index(int(wanted)) if wanted.isdecimal() and int(wanted) in numbers else 0
    key = f"clone of {name}"
    number = st.selectbox("Trial", numbers, index=place, key=key, width=200, on_change=_to_address, args=(key,))
    before = data.values(name, number)
    after = _values(data.fields(name), before, f"clone {name} {number}")
    changes = {each: value for each, value in after.items() if before.get(each) != value}
    obstacle = data.obstacle_to_weights(name, number, changes)
    weights = st.checkbox(
        "Start from this trial's weights",
        disabled=obstacle is not None,
        key=f"weights {name} {number} {obstacle is None}",
    )
    if obstacle is not None:
        st.text(obstacle)
    changed = f"{len(changes)} value{'s' * (len(changes) != 1)} changed"
    st.caption(changed if changes else "No changes: the same configuration runs again with another seed.")
    if _submit("Run clone", f"clone {name} submit"):
        _order(name, data.OrderKind.CLONE, number, changes=changes, from_weights=weights and obstacle is None)


def _to_address(key: str) -> None:
    """Keep the picked trial in the address."""
    st.query_params["clone"] = str(st.session_state[key])


def _values(fields: list[data.Field], before: dict[str, Any], key: str) -> dict[str, Any]:
    """Ask for parameters, prefilled with ``before``, and return the values given."""
    asked: dict[str, Any] = {}
    rows = [fields[first : first + COLUMNS] for first in range(0, len(fields), COLUMNS)]
    for row in rows:
        for column, field in zip(st.columns(COLUMNS), row, strict=False):
            with column:
                value = _value(field, before.get(field.name), f"{key} {field.name}")
                if value is not None:
                    asked[field.name] = value
                if field.name in before and value != before[field.name]:
                    _changed(before[field.name])
    return asked


def _changed(before: Any) -> None:
    """Show the former value of a changed parameter."""
    if isinstance(before, int | float):
        st.caption(f":material/edit: was {before:.6g}")
    else:
        st.caption(":material/edit: was")
        st.text(_choice(before))


def _value(field: data.Field, before: Any, key: str) -> Any:
    label = _label(field.name)
    if field.choices is not None:
        choices = [*([] if before is not None else [None]), *field.choices]
        place = choices.index(before) if before in choices else 0
        return st.selectbox(label, choices, index=place, key=key, format_func=_choice, help=_label(field.text, ""))
    assert field.low is not None and field.high is not None
    whole = isinstance(field.low, int)
    number: Callable[[Any], Any] = int if whole else float
    return st.number_input(
        label,
        min_value=number(field.low),
        max_value=number(field.high),
        value=None if before is None else number(before),
        step=None if field.step is None else number(field.step),
        format="%d" if whole else "%g",
        placeholder=SAMPLED,
        help=_label(field.text, ""),
        key=key,
    )


def _choice(value: Any) -> str:
    if value is None:
        return SAMPLED
    return home.clean(", ".join(value) if isinstance(value, tuple) else value)


def _label(text: str, otherwise: str = "parameter") -> str:
    """Return a name as a label, or ``otherwise`` if it could be read as Markdown, which labels are."""
    return text if _PLAIN.fullmatch(text) or re.fullmatch(r"[A-Za-z0-9 .,:+-]+", text) else otherwise


def _budget(name: str) -> None:
    before = data.budget(name)
    st.caption(
        "Limits on trials, time and epochs apply to trials that have not started; slots change after the current step."
    )
    with st.form(f"budget {name}", border=False):
        columns = st.columns(4)
        trials = columns[0].number_input("Trials", min_value=1, max_value=1_000_000, value=before["n_trials"])
        limit = data.duration(before["timeout"])
        time = columns[1].text_input("Time", value=limit, placeholder="no limit")
        epochs = columns[2].number_input(
            "Total epochs", min_value=0.0, value=before["max_epochs_total"], placeholder="no limit", format="%g"
        )
        slots = None
        if "slots" in before:
            present = None if before["slots"] == "auto" else before["slots"]
            slots = columns[3].number_input("Slots", min_value=1, max_value=256, value=present, placeholder="auto")
        if not st.form_submit_button("Change budget", icon=":material/tune:", disabled=editing.refusal() is not None):
            return

    def change(actor: str) -> str:
        timeout = before["timeout"] if time == limit else data.seconds(time)
        after = {"n_trials": trials, "timeout": timeout, "max_epochs_total": epochs}
        if "slots" in before:
            after["slots"] = slots or "auto"
        changes = {each: value for each, value in after.items() if value != before[each]}
        if not changes:
            return "Nothing to change: this is the current budget."
        return data.order(name, data.OrderKind.BUDGET, actor=actor, data=changes)

    editing.act(change)


def _submit(label: str, key: str, *, ready: bool = True) -> bool:
    return editing.button(
        label, key=key, type="primary", ready=ready, help=None if ready else "Enter at least one value."
    )


def _orders(name: str) -> None:
    with parts.explained():
        st.subheader("Orders")
        orders = data.control(name).orders
        if orders.empty:
            st.info("No orders have been given for this study.")
            return
        parts.table(orders, key="orders")


page()
