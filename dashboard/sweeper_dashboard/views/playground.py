"""The Playground page: one prompt to several versions, answers side by side, ratings stored as feedback."""

from __future__ import annotations

import pydantic
import streamlit as st

from sweeper_dashboard import session
from sweeper_dashboard.data import home
from sweeper_dashboard.data import playground as data
from sweeper_dashboard.views import editing, parts, rounds

_ROUND = "playground round"
_DUE = "playground due"
_EARLIER = "playground earlier turns"


def page() -> None:
    """Show the versions, the prompt and the answers."""
    st.title("Playground")
    with parts.explained():
        choices = data.choices()
        if not choices:
            st.info("No adapter that generates text is registered yet. A study registers its winner.")
            return
        picked = _picked(choices)
        if not picked:
            st.info("Pick one to four versions to compare their answers side by side.")
            return
        turns, sampling, blind, run = _question(choices, picked)
        if run and turns and sampling:
            answers = [rounds.ShownAnswer(reference, _label(choices, reference)) for reference in picked]
            asked = rounds.Round(turns, sampling, answers, blind, st.session_state.get(_DUE, ""))
            st.session_state[_ROUND] = asked
            st.button("Stop", icon=":material/stop:")
            rounds.stream(asked)
            st.rerun()
        if _ROUND in st.session_state:
            _answers(st.session_state[_ROUND])
        _earlier_feedback(picked)


def _picked(choices: dict[str, data.PlaygroundVersion]) -> list[str]:
    """Return the references of the picked versions, kept in the address."""
    wanted = [part for part in st.query_params.get("adapters", "").split(",") if part]
    asked = [data.Subject.parse(reference) for reference in wanted]
    there = [subject.reference for subject in asked if subject.reference in choices]
    bare = [subject for subject in asked if subject.bare]
    missing = {subject.reference.removeprefix("base:") for subject in asked} - choices.keys()
    if missing:
        st.warning("Some versions in this address are unavailable: they are not registered here, or are reward models.")
        st.text(", ".join(sorted(map(home.clean, missing))))
    st.session_state.setdefault(
        "playground versions", (there or list(choices)[:1] * (not wanted))[: data.MOST_VERSIONS]
    )
    st.session_state.setdefault("playground bare", bool(bare))
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    versions = left.multiselect(
        "Versions",
        list(choices),
        key="playground versions",
        format_func=lambda reference: choices[reference].label,
        max_selections=data.MOST_VERSIONS,
    )
    with_base = right.toggle("Base model", key="playground bare", help="Adds the base model of the first version.")
    picked = [*versions, *([f"base:{versions[0]}"] if with_base and versions else [])]
    st.query_params["adapters"] = ",".join(picked)
    return picked


def _label(choices: dict[str, data.PlaygroundVersion], reference: str) -> str:
    if reference.startswith("base:"):
        return f"base model {choices[reference.removeprefix('base:')].base_model}"
    return choices[reference].label


def _question(
    choices: dict[str, data.PlaygroundVersion], picked: list[str]
) -> tuple[list[data.Turn], data.Sampling | None, bool, bool]:
    """Show the prompt and the settings; return them, and whether to run."""
    examples = data.examples(choices[picked[0]].study)
    with st.container(border=True):
        if examples:
            st.selectbox(
                "Example from the test split",
                range(len(examples)),
                index=None,
                format_func=lambda place: examples[place].label,
                placeholder="Type a prompt below, or pick one from the study",
                key="playground example",
                on_change=lambda: _take(examples),
            )
        for turn in st.session_state.get(_EARLIER, []):
            st.text(home.clean(f"{turn.role}: {turn.content}"))
        prompt = st.text_area("Prompt", key="playground prompt", height=110, on_change=_forget_due)
        sampling, system = _settings()
        left, right = st.columns([1, 3], vertical_alignment="center")
        run = left.button("Run", type="primary", icon=":material/play_arrow:", disabled=not prompt.strip())
        blind = right.toggle("Blind", help="Hides the names and shuffles the answers until you rate one.")
    earlier = st.session_state.get(_EARLIER, [])
    return _turns(system, earlier, prompt) if run else [], sampling, blind, run


def _settings() -> tuple[data.Sampling | None, str]:
    with st.expander("Settings"):
        system = st.text_area(
            "System prompt", key="playground system", height=68, help="For versions trained on conversations."
        )
        first, second, third, fourth = st.columns(4)
        longest = first.number_input("Max new tokens", 1, 2048, 128)
        temperature = second.number_input(
            "Temperature", 0.0, 2.0, 0.0, 0.1, help="0 always picks the most likely token."
        )
        top_p = third.number_input("Top p", 0.05, 1.0, 1.0, 0.05)
        seed = fourth.number_input("Seed", 0, 2**32 - 1, 0)
        stop = st.text_input("Stop sequences", help="Texts that end an answer, separated by commas.")
    texts = tuple(text for part in stop.split(",") if (text := part.strip()))
    try:
        return data.Sampling(
            max_new_tokens=longest, temperature=temperature, top_p=top_p, seed=seed, stop=texts
        ), system
    except pydantic.ValidationError:
        st.error("These settings are invalid: at most eight stop sequences of up to 200 characters each are allowed.")
        return None, system


def _turns(system: str, earlier: list[data.Turn], prompt: str) -> list[data.Turn]:
    try:
        first = [data.Turn(role="system", content=system)] if system.strip() else []
        return [*first, *earlier, data.Turn(role="user", content=prompt)]
    except pydantic.ValidationError:
        st.error("This prompt is invalid: it contains characters that are not valid text, or is too long.")
        return []


def _take(examples: list[data.ExamplePrompt]) -> None:
    """Fill the form with the picked example."""
    place = st.session_state["playground example"]
    if place is None:
        return
    *earlier, last = examples[place].turns
    system = [turn.content for turn in earlier if turn.role == "system"]
    st.session_state["playground prompt"] = last.content
    st.session_state["playground system"] = "\n".join(system)
    st.session_state[_EARLIER] = [turn for turn in earlier if turn.role != "system"]
    st.session_state[_DUE] = examples[place].due


def _forget_due() -> None:
    """Drop the reference answer and the earlier turns: an edited prompt is no longer the example."""
    st.session_state.pop(_DUE, None)
    st.session_state.pop(_EARLIER, None)


def _answers(asked: rounds.Round) -> None:
    st.subheader("Answers")
    if asked.failed:
        st.error("The answers are incomplete.")
        st.text(home.clean(asked.failed))
    if asked.due:
        st.caption("Reference answer")
        parts.command(home.clean(asked.due))
    for place, column in enumerate(rounds.headings(asked)):
        with column:
            _answer(asked, place)
    if asked.hidden:
        st.caption("Rate an answer to see which version wrote which.")


def _answer(asked: rounds.Round, place: int) -> None:
    of = asked.shown[place]
    answer = asked.answers[of]
    parts.command(home.clean(answer.refused or answer.text))
    status = answer.status if answer.finished or answer.refused else "stopped"
    st.text(home.clean("\n".join(part for part in (status, "" if asked.hidden else answer.note) if part)))
    if answer.refused or answer.seen is None:
        return
    refused = editing.refusal()
    up, down = st.columns(2)
    done = answer.thumb is not None
    for column, good, icon, word in ((up, True, "thumb_up", "Good"), (down, False, "thumb_down", "Bad")):
        given = ":material/check:" if answer.thumb is good else f":material/{icon}:"
        column.button(
            word,
            key=f"thumb {good} {of} {asked.id}",
            icon=given,
            disabled=done or refused is not None,
            help=refused,
            width="stretch",
            on_click=_give,
            args=(asked, of, good),
        )
    if answer.corrected:
        st.caption("Correction saved.")
        return
    with st.expander("Correct this answer", icon=":material/edit:"):
        key = f"correction {of} {asked.id}"
        st.text_area("Correct answer", key=key, height=90, disabled=refused is not None)
        st.button(
            "Save correction",
            key=f"correct {of} {asked.id}",
            disabled=refused is not None,
            help=refused,
            on_click=_give,
            args=(asked, of, None),
        )


def _give(asked: rounds.Round, of: int, good: bool | None) -> None:
    """Store a rating, or without one the correction that was written."""
    answer, user = asked.answers[of], session.user()
    correction = None if good is not None else st.session_state.get(f"correction {of} {asked.id}", "").strip()
    if not user.may_edit or answer.seen is None or (good is None and not correction):
        return
    settings = {**asked.sampling.model_dump(mode="json"), "blind": asked.blind}
    with parts.explained():
        data.give(
            user.name,
            answer.reference,
            answer.seen,
            answer.text,
            settings=settings,
            good=good,
            correction=correction,
        )
        answer.thumb = answer.thumb if good is None else good
        answer.corrected = answer.corrected or correction is not None


def _earlier_feedback(picked: list[str]) -> None:
    found = data.given(picked)
    with st.expander(f"Feedback so far: {len(found)}", icon=":material/history:"):
        if found.empty:
            st.caption("No feedback yet.")
        else:
            parts.table(found)
        st.caption("`sweeper adapters feedback NAME --out FILE.jsonl` exports it as training data.")


page()
