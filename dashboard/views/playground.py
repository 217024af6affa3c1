"""One prompt, several versions, their answers side by side; thumbs and corrections are kept as feedback."""

from __future__ import annotations

import pydantic
import streamlit as st
from sweeper_dashboard import session
from sweeper_dashboard.data import home
from sweeper_dashboard.data import playground as data
from sweeper_dashboard.views import parts, rounds

_ROUND = "playground round"
_DUE = "playground due"
_EARLIER = "playground earlier turns"


def page() -> None:
    """Show whom to ask, what, and what they said."""
    st.title("Playground")
    with parts.explained():
        choices = data.choices()
        if not choices:
            st.info("No adapter that answers with text is registered: a study registers its winner.")
            return
        picked = _picked(choices)
        if not picked:
            st.info("Pick one version or more, up to four, to ask them side by side.")
            return
        turns, sampling, blind, run = _question(choices, picked)
        if run and turns and sampling:
            labels = {reference: _label(choices, reference) for reference in picked}
            answers = [rounds.Answer(reference, label) for reference, label in labels.items()]
            asked = rounds.Round(turns, sampling, answers, blind, st.session_state.get(_DUE, ""))
            st.session_state[_ROUND] = asked
            st.button("Stop", icon=":material/stop:")
            rounds.stream(asked)
            st.rerun()
        if _ROUND in st.session_state:
            _answers(st.session_state[_ROUND])
        _earlier_feedback(picked)


def _picked(choices: dict[str, data.Choice]) -> list[str]:
    """Return whom to ask, as the address names them."""
    wanted = [part for part in st.query_params.get("adapters", "").split(",") if part]
    asked = [data.Subject.parse(reference) for reference in wanted]
    there = [subject.reference for subject in asked if subject.reference in choices]
    bare = [subject for subject in asked if subject.bare]
    missing = {subject.reference.removeprefix("base:") for subject in asked} - choices.keys()
    if missing:
        st.warning("Not every version of this address can be asked: it is not registered here, or is a reward model.")
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
    with_base = right.toggle("Bare base", key="playground bare", help="The model below the first version.")
    picked = [*versions, *([f"base:{versions[0]}"] if with_base and versions else [])]
    st.query_params["adapters"] = ",".join(picked)
    return picked


def _label(choices: dict[str, data.Choice], reference: str) -> str:
    if reference.startswith("base:"):
        return f"base model {choices[reference.removeprefix('base:')].base_model}"
    return choices[reference].label


def _question(
    choices: dict[str, data.Choice], picked: list[str]
) -> tuple[list[data.Turn], data.Sampling | None, bool, bool]:
    """Show what is asked and how; return it, and whether to ask now."""
    examples = data.examples(choices[picked[0]].study)
    with st.container(border=True):
        if examples:
            st.selectbox(
                "Example from the test split",
                range(len(examples)),
                index=None,
                format_func=lambda place: examples[place].label,
                placeholder="Type a prompt below, or take one of the study's",
                key="playground example",
                on_change=lambda: _take(examples),
            )
        for turn in st.session_state.get(_EARLIER, []):
            st.text(home.clean(f"{turn.role}: {turn.content}"))
        prompt = st.text_area("Prompt", key="playground prompt", height=110, on_change=_forget_due)
        sampling, system = _settings()
        left, right = st.columns([1, 3], vertical_alignment="center")
        run = left.button("Run", type="primary", icon=":material/play_arrow:", disabled=not prompt.strip())
        blind = right.toggle("Blind", help="Names are hidden, and answers shuffled, until a thumb is given.")
    earlier = st.session_state.get(_EARLIER, [])
    return _turns(system, earlier, prompt) if run else [], sampling, blind, run


def _settings() -> tuple[data.Sampling | None, str]:
    with st.expander("Settings"):
        system = st.text_area(
            "System prompt", key="playground system", height=68, help="For versions trained on chats."
        )
        first, second, third, fourth = st.columns(4)
        longest = first.number_input("Most new tokens", 1, 2048, 128)
        temperature = second.number_input("Temperature", 0.0, 2.0, 0.0, 0.1, help="0 takes the likeliest token.")
        top_p = third.number_input("Top p", 0.05, 1.0, 1.0, 0.05)
        seed = fourth.number_input("Seed", 0, 2**32 - 1, 0)
        stop = st.text_input("Stop at", help="Texts that end an answer, separated by a comma.")
    texts = tuple(text for part in stop.split(",") if (text := part.strip()))
    try:
        return data.Sampling(
            max_new_tokens=longest, temperature=temperature, top_p=top_p, seed=seed, stop=texts
        ), system
    except pydantic.ValidationError:
        st.error("These settings cannot be used: at most eight stop texts, of at most 200 letters each.")
        return None, system


def _turns(system: str, earlier: list[data.Turn], prompt: str) -> list[data.Turn]:
    try:
        first = [data.Turn(role="system", content=system)] if system.strip() else []
        return [*first, *earlier, data.Turn(role="user", content=prompt)]
    except pydantic.ValidationError:
        st.error("This prompt cannot be asked: it holds characters that no text has, or is too long.")
        return []


def _take(examples: list[data.ExamplePrompt]) -> None:
    """Put an example into the form."""
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
    """A prompt that was changed is no example any more."""
    st.session_state.pop(_DUE, None)
    st.session_state.pop(_EARLIER, None)


def _answers(asked: rounds.Round) -> None:
    st.subheader("Answers")
    if asked.failed:
        st.error("The answers were not finished.")
        st.text(home.clean(asked.failed))
    if asked.due:
        st.caption("Due, by the example")
        st.code(home.clean(asked.due), language=None, wrap_lines=True)
    for place, column in enumerate(rounds.headings(asked)):
        with column:
            _answer(asked, place)
    if asked.hidden:
        st.caption("Give a thumb to see whose answers these are.")


def _answer(asked: rounds.Round, place: int) -> None:
    of = asked.shown[place]
    answer = asked.answers[of]
    st.code(home.clean(answer.refused or answer.text) or " ", language=None, wrap_lines=True)
    status = answer.status if answer.finished or answer.refused else "stopped"
    st.text(home.clean("\n".join(part for part in (status, "" if asked.hidden else answer.note) if part)))
    if answer.refused or answer.seen is None:
        return
    may = session.user().may_edit
    why = None if may else "Viewers cannot give feedback; ask for an editor's account."
    up, down = st.columns(2)
    done = answer.thumb is not None
    for column, good, icon, word in ((up, True, "thumb_up", "Good"), (down, False, "thumb_down", "Bad")):
        given = ":material/check:" if answer.thumb is good else f":material/{icon}:"
        column.button(
            word,
            key=f"thumb {good} {of} {asked.id}",
            icon=given,
            disabled=done or not may,
            help=why,
            width="stretch",
            on_click=_give,
            args=(asked, of, good),
        )
    if answer.corrected:
        st.caption("The correction is kept.")
        return
    with st.expander("Correct it", icon=":material/edit:"):
        st.text_area("What would have been right", key=f"correction {of} {asked.id}", height=90, disabled=not may)
        st.button(
            "Keep the correction",
            key=f"correct {of} {asked.id}",
            disabled=not may,
            help=why,
            on_click=_give,
            args=(asked, of, None),
        )


def _give(asked: rounds.Round, of: int, good: bool | None) -> None:
    """Keep a thumb, or with none the correction that was written."""
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
            st.caption(
                "Nobody has given any. It becomes training data with `sweeper adapters feedback NAME --out FILE`."
            )
            return
        parts.table(found)
        st.caption("As training data: `sweeper adapters feedback NAME --out FILE.jsonl`")


page()
