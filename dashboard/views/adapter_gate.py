"""A version's way to production: its stage, the gate with its verdict, and the way back."""

from __future__ import annotations

import streamlit as st
from sweeper_dashboard.charts import adapters as charts
from sweeper_dashboard.data import adapters, changes, gate, home
from sweeper_dashboard.data.adapters import Adapter
from sweeper_dashboard.views import adapter_parts, parts

REFRESH_S = 2
_MOVES = {
    "candidate": ("Back to candidate", ":material/undo:"),
    "staging": ("Move to staging", ":material/science:"),
    "archived": ("Archive", ":material/inventory_2:"),
}
_BADGES = {
    "passed": ("The gate is open", ":material/check_circle:", "green"),
    "not better": ("The gate is closed", ":material/block:", "red"),
    "too few": ("The gate is closed", ":material/block:", "red"),
    "not scored": ("Not compared yet", ":material/help:", "orange"),
}


def show(of: Adapter) -> None:
    """Show where a version may go."""
    _moves(of)
    if of.stage == "production":
        st.info("This version is in production. Another one takes its place through the gate, or by rolling back.")
    else:
        running = gate.scoring(of.name, of.version).state == "running"
        st.fragment(_gate, run_every=REFRESH_S if running else None)(of, running)
    _roll_back(of)


def _moves(of: Adapter) -> None:
    refused = adapter_parts.why_not()
    with st.container(border=True):
        st.markdown("**Stage**")
        st.caption("candidate → staging → production; what is not used is archived, and can come back.")
        with st.container(horizontal=True):
            for stage in of.moves:
                if stage in _MOVES:
                    label, icon = _MOVES[stage]
                    if st.button(label, icon=icon, key=f"to {stage}", disabled=refused is not None, help=refused):
                        adapter_parts.act(lambda actor, stage=stage: changes.move(of.name, of.version, stage, actor))


def _gate(of: Adapter, was_running: bool) -> None:
    with parts.explained(), st.container(border=True):
        job = gate.scoring(of.name, of.version)
        if was_running and job.state != "running":
            st.rerun()
        judgement = gate.judgement(of.name, of.version)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**Gate to production**", width="content")
            label, icon, colour = _BADGES[judgement.state]
            st.badge(label, icon=icon, color=colour)
        st.text(home.clean(judgement))
        if judgement.gain is not None:
            drawn = charts.gate(judgement.gain, judgement.low, judgement.high, judgement.margin, judgement.passed)
            parts.figure(drawn, f"gate {of.name} {of.version}")
            st.caption(
                "Paired difference on the same test examples, with its 95 % interval. The margin is "
                "evaluation.promotion_margin of the version's study."
            )
        if judgement.unscored:
            _scoring(of)
        _promote(of, judgement.passed)


def _scoring(of: Adapter) -> None:
    """Offer to score what the gate lacks, and show how that goes."""
    job, refused = gate.scoring(of.name, of.version), adapter_parts.why_not()
    if job.state == "running":
        st.status("Scoring on the test examples of this version's study", state="running")
        st.text(job.said)
        return
    if job.state == "failed":
        st.error("The scoring failed.")
        st.code(job.said or "It said nothing.", language=None, wrap_lines=True)
    if st.button("Score it now", icon=":material/play_arrow:", disabled=refused is not None, help=refused):
        adapter_parts.act(lambda actor: _begin(of, actor))
    st.caption("Loads the model in a process of its own; the page shows how far it is.")


def _begin(of: Adapter, actor: str) -> str:
    gate.start_scoring(of.name, of.version, actor)
    return f"{of.label} is being scored"


def _promote(of: Adapter, passed: bool) -> None:
    if "production" not in of.moves:
        st.caption("Only a version in staging, or one that comes back from the archive, can be promoted.")
        return
    refused = adapter_parts.why_not()
    reason = force = None
    if not passed:
        force = st.toggle("Overrule the gate", key=f"force {of.name} {of.version}", disabled=refused is not None)
        if force:
            reason = st.text_input(
                "Why (it is kept, and the promotion is marked as forced)", key=f"reason {of.name} {of.version}"
            )
    ready = passed or bool(force and reason and reason.strip())
    clicked = st.button(
        "Promote to production",
        icon=":material/rocket_launch:",
        type="primary",
        disabled=refused is not None or not ready,
        help=refused or (None if ready else "The gate is closed; overruling it needs a reason."),
    )
    if clicked:
        adapter_parts.act(
            lambda actor: changes.move(of.name, of.version, "production", actor, force=bool(force), reason=reason or "")
        )


def _roll_back(of: Adapter) -> None:
    target, present = gate.rollback_target(of.name), adapters.production(of.name)
    refused = adapter_parts.why_not()
    with st.container(border=True):
        st.markdown("**Emergency exit**")
        if target is None:
            st.caption("No archived version was in production before, so there is nothing to go back to.")
            return
        instead = "" if present is None else f" instead of v{present}"
        st.text(f"{of.name} v{target} was in production before; it comes back at once{instead}, without the gate.")
        if gate.forced_in(of.name, target):
            st.caption("It had been forced in against the gate, so the rollback is marked as forced too.")
        reason = st.text_input("Why", key=f"rollback reason {of.name}", disabled=refused is not None)
        if st.button(f"Roll back to v{target}", icon=":material/history:", disabled=refused is not None, help=refused):
            adapter_parts.act(lambda actor: changes.roll_back(of.name, actor, reason))
