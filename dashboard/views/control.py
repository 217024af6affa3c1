"""Steering a study: pause, resume and stop it, end a trial, run a configuration, change the budget."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import streamlit as st
from sweeper_dashboard import session
from sweeper_dashboard.data import control as data
from sweeper_dashboard.data import home, studies
from sweeper_dashboard.views import parts

REFRESH_S = 2
SHOWN = 16
"""Trials under way that have a line of their own."""

COLUMNS = 3
"""Parameters beside each other."""

SAMPLED = "leave to the sampler"
_PLAIN = re.compile(r"[A-Za-z0-9]+([_.-][A-Za-z0-9]+)*")
_SAID = "control said"
_EDITORS = "Only editors give orders."
_FORMS = ("Run a configuration", "Clone a trial", "Budget and slots")


def page() -> None:
    """Show the study that the address names, or the latest, and take orders."""
    st.title("Control")
    with parts.explained():
        name = parts.chosen_study(studies.study_names(), "clone")
        if name is None:
            st.info("No study has been run in this home yet.")
            st.code("sweeper run studies/quickstart.yaml", language=None)
            return
        if not session.user().may_edit:
            st.info("You may look at everything here; orders are given by editors.", icon=":material/visibility:")
        _said()
        alive = data.control(name).live
        st.fragment(_standing, run_every=REFRESH_S if alive else None)(name, alive)
        _forms(name)
        st.fragment(_orders, run_every=REFRESH_S if alive else None)(name)


# ---- giving orders


def _give(ask: Callable[[], str]) -> None:
    """Give an order, keep what came of it, and show the page anew."""
    try:
        _require_editor()
        st.session_state[_SAID] = (True, ask())
    except data.UserError as error:
        st.session_state[_SAID] = (False, home.said(error))
    st.rerun(scope="app")


def _require_editor() -> None:
    """Refuse whoever may change nothing: a closed button sends nothing, but who knows what a browser sends."""
    if not session.user().may_edit:
        raise data.UserError(_EDITORS)


def _said() -> None:
    """Show what came of the last order."""
    said = st.session_state.pop(_SAID, None)
    if said is None:
        return
    done, text = said
    with st.container(border=True):
        if done:
            st.caption(":material/check_circle: Your order")
        else:
            st.caption(":material/error: Refused")
        st.text(text)


def _order(name: str, kind: data.OrderKind, number: int | None = None, **asked: Any) -> None:
    _give(lambda: data.order(name, kind, actor=session.user().name, number=number, data=asked))


@st.dialog("Stop the study?")
def _confirm_stop(name: str) -> None:
    st.write("The step under way ends, then the study. Packed trials are frozen, and a resume goes on where they are.")
    st.text(home.clean(name))
    stop, keep = st.columns(2)
    if stop.button("Stop it", type="primary", icon=":material/stop:", width="stretch"):
        _order(name, data.OrderKind.STOP)
    if keep.button("Let it run", width="stretch"):
        st.rerun()


# ---- where it stands


def _standing(name: str, was_alive: bool) -> None:
    with parts.explained():
        found = data.control(name)
        if found.live != was_alive:
            st.rerun(scope="app")
        shown = {
            "State": found.state.value,
            "Runner": "alive" if found.runs else "none",
            "Trials": f"{found.done} of {found.n_trials}",
            "Orders waiting": str(found.waiting),
        }
        for column, (label, value) in zip(st.columns(len(shown)), shown.items(), strict=True):
            column.metric(label, value)
        _buttons(name, found)
        if found.failed:
            st.error("The resume that was started here failed. It wrote:")
            st.code(found.failed, language=None, wrap_lines=True)
        _under_way(name, found)


def _buttons(name: str, found: data.Control) -> None:
    may = session.user().may_edit
    reason = None if may else _EDITORS
    row = st.container(horizontal=True)
    running = found.runs and not found.paused
    closed = found.live and not found.paused
    if row.button(
        "Pause", icon=":material/pause:", disabled=not (may and running), help=reason, width=140, key="pause"
    ):
        _order(name, data.OrderKind.PAUSE)
    if row.button(
        "Resume",
        icon=":material/play_arrow:",
        disabled=not may or closed,
        help=reason or (None if found.live else "Starts a process that goes on with it."),
        width=140,
        key="resume",
    ):
        _give(lambda: data.resume(name, actor=session.user().name))
    may_stop = may and found.runs
    asked = row.button("Stop", icon=":material/stop:", disabled=not may_stop, help=reason, width=140, key="stop")
    if asked and may:
        _confirm_stop(name)
    if found.runs:
        st.caption("The runner obeys after the step under way. Paused, it keeps its memory and its place.")
    elif found.live:
        st.caption("A process was started that goes on with it, or runs another stage of it.")
    else:
        st.caption("No process runs this study. Orders wait until it is resumed.")


def _under_way(name: str, found: data.Control) -> None:
    if not found.under_way:
        return
    st.subheader("Under way")
    may = session.user().may_edit
    for trial in found.under_way[:SHOWN]:
        with st.container(border=True):
            number, progress, text, stop = st.columns([1, 2, 4, 1.4], vertical_alignment="center")
            number.markdown(f"**Trial {trial.number}**")
            progress.progress(trial.progress)
            text.text(f"{trial.state}  {trial.text}")
            if stop.button(
                "Stop",
                icon=":material/close:",
                key=f"stop {trial.number}",
                disabled=not may,
                help="The trial is pruned at its next step; the others go on." if may else _EDITORS,
                width="stretch",
            ):
                _order(name, data.OrderKind.STOP_TRIAL, trial.number)
    if len(found.under_way) > SHOWN:
        st.caption(f"{len(found.under_way) - SHOWN} more; `sweeper stop STUDY --trial N` stops any of them.")


# ---- forms


def _forms(name: str) -> None:
    st.subheader("Give an order")
    default = _FORMS[1] if "clone" in st.query_params else _FORMS[0]
    for tab, show in zip(st.tabs(_FORMS, default=default), (_enqueue, _clone, _budget), strict=True):
        with tab, parts.explained():
            show(name)


def _enqueue(name: str) -> None:
    st.caption("Runs next, on top of the study's own trials. What is left empty is chosen by the sampler.")
    fields = data.fields(name)
    if not fields:
        st.info("Nothing is searched in this study: every trial has the same configuration.")
        return
    asked = _values(fields, {}, f"enqueue {name}")
    if _submit("Run it", f"enqueue {name} submit", ready=bool(asked)):
        _order(name, data.OrderKind.ENQUEUE, parameters=asked)


def _clone(name: str) -> None:
    numbers = data.trial_numbers(name)
    if not numbers:
        st.info("There is no trial to clone yet.")
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
        "Start from its weights", disabled=obstacle is not None, key=f"weights {name} {number} {obstacle is None}"
    )
    if obstacle is not None:
        st.text(obstacle)
    changed = f"{len(changes)} value{'s' * (len(changes) != 1)} changed"
    st.caption(changed if changes else "Nothing is changed: the same configuration runs again with another seed.")
    if _submit("Run the clone", f"clone {name} submit"):
        _order(name, data.OrderKind.CLONE, number, changes=changes, from_weights=weights and obstacle is None)


def _to_address(key: str) -> None:
    """Let the address name the trial that was picked."""
    st.query_params["clone"] = str(st.session_state[key])


def _values(fields: list[data.Field], before: dict[str, Any], key: str) -> dict[str, Any]:
    """Ask for parameters, prefilled with ``before``, and return those that are given."""
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
    """Say that a value was another."""
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
    number = int if whole else float
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
    """Return a name as a label, which reads Markdown; one that could be read as such is not shown in it."""
    return text if _PLAIN.fullmatch(text) or re.fullmatch(r"[A-Za-z0-9 .,:+-]+", text) else otherwise


def _budget(name: str) -> None:
    before = data.budget(name)
    st.caption("Trials, time and epochs hold for trials that have not begun; slots change after the step under way.")
    with st.form(f"budget {name}", border=False):
        columns = st.columns(4)
        trials = columns[0].number_input("Trials", min_value=1, max_value=1_000_000, value=before["n_trials"])
        limit = data.duration(before["timeout"])
        time = columns[1].text_input("Time", value=limit, placeholder="no limit")
        epochs = columns[2].number_input(
            "Epochs in all", min_value=0.0, value=before["max_epochs_total"], placeholder="no limit", format="%g"
        )
        slots = None
        if "slots" in before:
            present = None if before["slots"] == "auto" else before["slots"]
            slots = columns[3].number_input("Slots", min_value=1, max_value=256, value=present, placeholder="auto")
        may = session.user().may_edit
        if not st.form_submit_button("Change the budget", icon=":material/tune:", disabled=not may):
            return

    def ask() -> str:
        timeout = before["timeout"] if time == limit else data.seconds(time)
        after = {"n_trials": trials, "timeout": timeout, "max_epochs_total": epochs}
        if "slots" in before:
            after["slots"] = slots or "auto"
        changes = {each: value for each, value in after.items() if value != before[each]}
        if not changes:
            return "Nothing was changed: the budget is so already."
        return data.order(name, data.OrderKind.BUDGET, actor=session.user().name, data=changes)

    _give(ask)


def _submit(label: str, key: str, *, ready: bool = True) -> bool:
    may = session.user().may_edit
    words = _EDITORS if not may else None if ready else "Give at least one value."
    return st.button(label, key=key, type="primary", disabled=not (may and ready), help=words)


# ---- what was asked


def _orders(name: str) -> None:
    with parts.explained():
        st.subheader("Orders")
        orders = data.control(name).orders
        if orders.empty:
            st.info("Nothing was asked of this study yet.")
            return
        parts.table(orders, key="orders")


page()
