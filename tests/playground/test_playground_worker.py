"""The worker for real: answers streamed, one base for several versions, cancelling, crashes, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from registered import register
from tiny_studies import beginning, study_writer

from sweeper.config.adapter import Full, LoRA, Prompt, QLoRA
from sweeper.evaluation.generation import generate
from sweeper.paths import Home
from sweeper.playground.client import Playground
from sweeper.playground.protocol import Ask, Event, Sampling, Subject, Turn
from sweeper.training.base_model import load_base

GREEDY = Sampling(max_new_tokens=12)
ENDLESS = Sampling(max_new_tokens=100, temperature=1.0)


@pytest.fixture
def playground() -> Iterator[Playground]:
    opened = Playground(Home.current())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(tiny_model, tiny_data, tmp_path_factory) -> Iterator[Playground]:
    """A playground of a home with several adapters, for all tests that only ask: its worker imports torch once."""
    folder = tmp_path_factory.mktemp("served")
    rows = [{"instruction": f"write {number}", "output": str(number)} for number in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPER_HOME", str(folder / "home"))
        patch.setenv("SWEEPER_CACHE", str(folder / "cache"))
        patch.delenv("SWEEPER_STORAGE", raising=False)
        with beginning(study_writer(tiny_model, tiny_data, folder)) as begin:
            tiny = begin()
            register(tiny)
            register(tiny, number=1)
            (register(tiny, number=2).folder / "README.md").write_text("another")
            register(begin(name="quantised"), adapter=QLoRA())
            register(begin(name="chat", shape="messages"))
            files = {"train": str(folder / "rows.jsonl"), "validation": None, "test": None}
            register(begin(name="instructions", data=files))
            ranked = {"technique": {"kind": "reward"}, "evaluation": {"metrics": ["preference_accuracy"]}}
            register(begin(name="reward", shape="preference", **ranked))
        opened = Playground(Home.current())
    yield opened
    opened.close()


def user(text: str = "write one two: ") -> list[Turn]:
    return [Turn(role="user", content=text)]


def answers(events: list[Event]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in events:
        if event.kind == "piece":
            found[event.subject] = found.get(event.subject, "") + event.text
    return found


def of_kind(events, kind):
    return [event for event in events if event.kind == kind]


def ask(playground, *references, turns=None, sampling=GREEDY):
    asked = playground.ask([Subject.parse(each) for each in references], turns or user(), sampling)
    return list(asked.events())


def test_versions_share_a_base_and_answer_as_evaluation_does(begin, playground):
    context = begin()
    versions = [register(context, number=number) for number in range(2)]
    events = ask(playground, "tiny@1", "tiny@2", "base:tiny@2")
    assert events[-1].kind == "done" and not of_kind(events, "refused")
    loaded = [event.text for event in of_kind(events, "loading")]
    assert loaded == [f"loading {context.config.models.popitem()[0]}", "loading tiny v1", "loading tiny v2"]
    expected = evaluated(context, LoRA(), versions)
    assert answers(events) == {place: text for place, text in enumerate(expected) if text}
    assert len(set(expected)) == 3, "they differ, so that each was really asked"
    for event in of_kind(events, "answered"):
        assert event.tokens and event.first_token_s > 0 and event.ended in ("end", "length")
    assert [event.seen for event in of_kind(events, "started")] == ["write one two: "] * 3
    assert of_kind(events, "started")[0].device.startswith("cpu")
    again = ask(playground, "tiny@1")
    assert [event.text for event in of_kind(again, "loading")] == ["loading tiny v1"], "the base is there already"
    assert answers(again)[0] == answers(events)[0]


def evaluated(context, adapter, versions):
    """Return what evaluation generates: an answer of each version, and the base model's."""
    (model,) = context.models.values()
    base = load_base(model.folder, model.config, adapter, "cpu")
    found = []
    for version in versions:
        with base.with_adapter(version.folder) as adapted:
            found.append(generate(adapted, base.tokenizer, ["write one two: "], 12)[0])
    return [*found, generate(base.model, base.tokenizer, ["write one two: "], 12)[0]]


@pytest.mark.long
@pytest.mark.parametrize("adapter", [Full(), QLoRA(), Prompt(virtual_tokens=4)], ids=lambda adapter: adapter.kind)
def test_every_kind_of_adapter_can_be_asked(begin, playground, adapter):
    context = begin()
    versions = [register(context, adapter=adapter)]
    found = answers(ask(playground, "tiny@1", "base:tiny@1"))
    own, base = evaluated(context, adapter, versions)
    assert found[0] == own != found[1] == base


def test_a_quantised_version_answers_otherwise_than_its_base(served):
    found = answers(ask(served, "quantised@1", "base:quantised@1"))
    assert found[0] != found[1]


def test_a_conversation_goes_through_the_chat_template(served):
    turns = [Turn(role="system", content="Be brief."), *user("write one")]
    events = ask(served, "chat@1", turns=turns)
    (started,) = of_kind(events, "started")
    assert started.seen == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "write one"}]


def test_instructions_are_set_as_they_were_trained(served):
    (started,) = of_kind(ask(served, "instructions@1", turns=user("write 7")), "started")
    assert started.seen.startswith("Below is an instruction") and "### Instruction:\nwrite 7\n" in started.seen


def test_plain_text_versions_get_the_prompt_alone_and_say_so(served):
    events = ask(served, "tiny@1", turns=[Turn(role="system", content="Be brief."), *user("x: ")])
    (started,) = of_kind(events, "started")
    assert started.seen == "x: " and "gets only the prompt" in started.text


def test_a_seed_gives_the_same_answer_again_and_another_another(served):
    first, again, other = (
        answers(ask(served, "tiny@1", sampling=Sampling(max_new_tokens=20, temperature=1.5, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_stop_text_ends_an_answer_and_is_not_told(served):
    whole = answers(ask(served, "tiny@1"))[0]
    stop = whole[4:7]
    events = ask(served, "tiny@1", sampling=Sampling(max_new_tokens=12, stop=(stop,)))
    assert answers(events).get(0, "") == whole[: whole.index(stop)]
    assert of_kind(events, "answered")[0].ended == "stop"


def test_pieces_come_while_the_answer_is_made_and_it_can_be_cancelled(served):
    asked = served.ask([Subject.parse("tiny@1"), Subject.parse("base:tiny@1")], user(), ENDLESS)
    events = []
    for event in asked.events():
        events.append(event)
        if event.kind == "piece":
            asked.cancel()
    told = of_kind(events, "answered")
    assert [(event.subject, event.ended) for event in told] == [(0, "cancelled")], "the second was not asked any more"
    assert told[0].tokens < 100 and events[-1].kind == "done"


def test_who_waits_is_told_their_place(served):
    first = served.ask([Subject.parse("tiny@1")], user(), ENDLESS)
    second = served.ask([Subject.parse("tiny@1")], user(), GREEDY)
    waiting = next(second.events())
    assert (waiting.kind, waiting.place) == ("queued", 1)
    first.cancel()
    assert list(first.events())[-1].kind == list(second.events())[-1].kind == "done"


def test_what_cannot_be_asked_is_refused_with_a_reason_and_the_others_answer(served):
    events = ask(served, "tiny@3", "tiny@9", "tiny@1", "reward@1")
    refused = {event.subject: event.text for event in of_kind(events, "refused")}
    assert "is not as it was registered" in refused[0] and "has no version 9" in refused[1]
    assert "answers with a number" in refused[3]
    assert [event.subject for event in of_kind(events, "answered")] == [2]


@pytest.mark.parametrize(
    "text", ["</script>\u2028\u2029\r\n\x1b[31m\u202e{{7*7}}", '"}\n{"kind": "cancel"}', "<|im_end|>" * 3, "👍🏽é\t"]
)
def test_a_hostile_prompt_is_a_prompt(served, text):
    events = ask(served, "tiny@1", turns=user(text))
    assert of_kind(events, "started")[0].seen == text and of_kind(events, "answered")


def test_a_prompt_beyond_the_context_is_refused(served):
    (refused,) = of_kind(ask(served, "tiny@1", turns=user("x " * 500)), "refused")
    assert "tokens, and the model takes" in refused.text
    assert of_kind(ask(served, "tiny@1"), "answered"), "and it goes on"


def test_a_crash_is_told_and_the_next_request_starts_a_new_worker(begin, playground):
    register(begin())
    assert not playground.running
    asked = playground.ask([Subject.parse("tiny@1")], user(), ENDLESS)
    killed = False
    for event in asked.events():
        if event.kind == "loading" and not killed:
            killed = True
            playground._process.kill()
    assert event.kind == "failed"
    assert "SIGKILL, as the system does when memory runs out" in event.text
    assert of_kind(ask(playground, "tiny@1"), "answered")


@pytest.mark.long
def test_it_ends_after_a_while_without_a_request_and_comes_back(begin):
    register(begin())
    playground = Playground(Home.current(), idle_s=0.2)
    try:
        assert of_kind(ask(playground, "tiny@1"), "answered")
        deadline = time.monotonic() + 60
        while playground.running and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not playground.running
        assert of_kind(ask(playground, "tiny@1"), "answered")
    finally:
        playground.close()


PARENT = """
import sys, time
from sweeper.paths import Home
from sweeper.playground.client import Playground
from sweeper.playground.protocol import Sampling, Subject, Turn
playground = Playground(Home.current())
asked = playground.ask([Subject.parse("tiny@1")], [Turn(role="user", content="x")], Sampling(max_new_tokens=2))
list(asked.events())
print(playground._process.pid, flush=True)
time.sleep(600)
"""


def test_it_ends_with_whoever_started_it(begin):
    register(begin())
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    worker.wait(timeout=60)


NOISY = """
import os, runpy, sys
from sweeper.playground import answering
own = answering.stream_answer
def stream_answer(*arguments):
    print("a library says hello", flush=True)
    os.write(1, b"and C too\\n")
    return own(*arguments)
answering.stream_answer = stream_answer
sys.argv = ["worker"]
runpy.run_module("sweeper.playground.worker", run_name="__main__")
"""


def test_what_libraries_print_does_not_mix_with_the_protocol(begin):
    register(begin())
    ask = Ask(id="1", subjects=(Subject(adapter="tiny", version=1),), turns=tuple(user()))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", NOISY], text=True, **pipes) as worker:
        worker.stdin.write("not json\n" + ask.model_dump_json() + "\n")
        worker.stdin.flush()
        events = []
        while not events or events[-1].kind != "done":
            events.append(Event.model_validate_json(worker.stdout.readline()))
        rest, said = worker.communicate()
    assert answers(events) and rest == ""
    assert all(text in said for text in ("a library says hello", "and C too", "not a request"))


def test_whoever_asks_imports_no_torch():
    code = (
        "import sys, sweeper.playground.client; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_several_threads_ask_one_worker(served):
    found = []

    def one():
        found.append(answers(ask(served, "tiny@1")))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and found[0] == found[1] == found[2]
