"""The Production section of the Adapters page: stages, the gate, promotion and rollback."""

from __future__ import annotations

from functools import partial
from typing import Literal

import streamlit as st

from sweeper_dashboard.charts import adapters as charts
from sweeper_dashboard.data import adapters, changes, home
from sweeper_dashboard.data.adapters import Adapter
from sweeper_dashboard.views import editing, parts

REFRESH_S = 2
_MOVES = {
    "candidate": ("Back to candidate", ":material/undo:"),
    "staging": ("Move to staging", ":material/science:"),
    "archived": ("Archive", ":material/inventory_2:"),
}
_BADGES: dict[str, tuple[str, str, Literal["green", "red", "orange"]]] = {
    "passed": ("The gate is open", ":material/check_circle:", "green"),
    "not better": ("The gate is closed", ":material/block:", "red"),
    "too few": ("The gate is closed", ":material/block:", "red"),
    "not scored": ("Not compared yet", ":material/help:", "orange"),
}


def show(of: Adapter) -> None:
    """Show the stage of a version, and what may change it."""
    _moves(of)
    if of.stage == "production":
        st.info("This version is in production. Another one replaces it by passing the gate, or by a rollback.")
    else:
        running = changes.scoring(of.name, of.version).state == "running"
        st.fragment(_gate, run_every=REFRESH_S if running else None)(of, running)
    _roll_back(of)


def _moves(of: Adapter) -> None:
    with st.container(border=True):
        st.markdown("**Stage**")
        st.caption("candidate → staging → production. Unused versions are archived and can be restored.")
        with st.container(horizontal=True):
            for stage in of.moves:
                if stage in _MOVES:
                    label, icon = _MOVES[stage]
                    if editing.button(label, icon=icon, key=f"to {stage}"):
                        editing.act(partial(changes.move, of.name, of.version, stage))


def _gate(of: Adapter, was_running: bool) -> None:
    with parts.explained(), st.container(border=True):
        job = changes.scoring(of.name, of.version)
        if was_running and job.state != "running":
            st.rerun()
        judgement = changes.judgement(of.name, of.version)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**Gate to production**", width="content")
            label, icon, colour = _BADGES[judgement.state]
            st.badge(label, icon=icon, color=colour)
        st.text(home.clean(judgement))
        if judgement.gain is not None and judgement.low is not None and judgement.high is not None:
            drawn = charts.gate(judgement.gain, judgement.low, judgement.high, judgement.margin, judgement.passed)
            parts.figure(drawn, f"gate {of.name} {of.version}")
            st.caption(
                "Paired difference on the same test examples, with its 95 % interval. The margin is the "
                "evaluation.promotion_margin of the version's study."
            )
        if judgement.unscored:
            _scoring(of)
        _promote(of, judgement.passed)


def _scoring(of: Adapter) -> None:
    """Offer to score what the gate is missing, and show the progress."""
    job = changes.scoring(of.name, of.version)
    if job.state == "running":
        st.status("Scoring on the test examples of this version's study", state="running")
        st.text(job.said)
        return
    if job.state == "failed":
        st.error("Scoring failed.")
        parts.command(job.said or "The command printed no message.")
    if editing.button("Score now", icon=":material/play_arrow:"):
        editing.act(partial(changes.start_scoring, of.name, of.version))
    st.caption("Loads the model in a separate process; the progress is shown here.")


def _promote(of: Adapter, passed: bool) -> None:
    if "production" not in of.moves:
        st.caption("Only versions in staging or in the archive can be promoted.")
        return
    reason, force, refused = "", False, editing.refusal()
    if not passed:
        force = st.toggle("Override the gate", key=f"force {of.name} {of.version}", disabled=refused is not None)
        if force:
            reason = st.text_input(
                "Reason (recorded; the promotion is marked as forced)", key=f"reason {of.name} {of.version}"
            )
    ready = passed or bool(reason.strip())
    closed = None if ready else "The gate is closed; overriding it requires a reason."
    if editing.button(
        "Promote to production", icon=":material/rocket_launch:", type="primary", ready=ready, help=closed
    ):
        editing.act(partial(changes.move, of.name, of.version, "production", force=force, reason=reason))


def _roll_back(of: Adapter) -> None:
    target, present = changes.rollback_target(of.name), adapters.production(of.name)
    with st.container(border=True):
        st.markdown("**Rollback**")
        if target is None:
            st.caption("No archived version was in production before, so there is nothing to roll back to.")
            return
        instead = "" if present is None else f", replacing v{present}"
        st.text(f"{of.name} v{target} was in production before. It returns at once{instead}, without the gate.")
        if changes.forced_in(of.name, target):
            st.caption("It was promoted against the gate, so the rollback is marked as forced too.")
        refused = editing.refusal()
        reason = st.text_input("Reason", key=f"rollback reason {of.name}", disabled=refused is not None)
        if editing.button(f"Roll back to v{target}", icon=":material/history:"):
            editing.act(partial(changes.roll_back, of.name, reason=reason))
