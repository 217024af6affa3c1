"""The page Data: numbers, the browser of examples, and that hostile text stays text."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import tiny
from filled_home import HOSTILE

from sweeper.paths import Home


def markup(app):
    return "\n".join(element.proto.body for element in app.get("html"))


def captions(app):
    return "\n".join(element.value for element in app.caption)


def files(tmp_path, rows):
    return {split: str(tiny.write_rows(tmp_path / f"{split}.jsonl", of)) for split, of in rows.items()}


@pytest.fixture
def rows_of(begin, tmp_path):
    """Begin a study on rows of one's own."""

    def study(train, test=None, **parts):
        spare = [tiny.row("prompt_completion", number) for number in range(4)]
        return begin(data=files(tmp_path, {"train": train, "validation": spare, "test": test or spare}), **parts)

    return study


def test_the_splits_stand_side_by_side_with_cuts_and_duplicates(show, rows_of):
    train = [tiny.row("prompt_completion", number) for number in (11, 12, 13, 11)]
    long = {"prompt": "write " + "x" * 40, "completion": "7"}
    rows_of([*train, long], [tiny.row("prompt_completion", 12)], technique={"max_length": 20})
    app = show("training_data", study="tiny")
    facts = app.dataframe[0].value.set_index("measure")
    assert facts.loc["Rows"].tolist() == ["5", "4", "1"]
    assert facts.loc["Rows truncated or excluded", "train"] == "20.0%"
    assert facts.loc["Duplicates in the split"].tolist() == ["1", "0", "0"]
    assert facts.loc["Duplicates of train rows", "test"] == "1"
    duplicates = app.dataframe[1].value
    assert sorted(duplicates["where"]) == ["train 1, train 4", "train 2, test 1"]
    assert len(app.get("plotly_chart")) == 1


def test_examples_are_searched_filtered_and_paged_from_the_address(show, rows_of):
    rows_of([tiny.row("prompt_completion", number) for number in range(10, 22)], technique={"max_length": 64})
    app = show("training_data", study="tiny", at="3")
    assert "Row 11 of train" in captions(app) and "Row 10 of train" not in captions(app)
    app.text_input(key="q").set_value("TWO ZERO").run()
    assert app.number_input(key="at").value == 1 and not app.exception
    assert "Row 11 of train" in captions(app)
    app = show("training_data", study="tiny", at="99")
    assert "Row 1 of train" in captions(app), "an address of another time"
    app = show("training_data", study="tiny", q="TWO ZERO")
    assert "Row 11 of train" in captions(app) and "1 rows" in captions(app)
    app = show("training_data", study="tiny", split="validation", only="truncated or excluded")
    assert "No rows of this split match" in app.info[0].value
    app.segmented_control(key="split").set_value("test")
    app.segmented_control(key="only").set_value("all rows").run()
    assert "Row 1 of test" in captions(app)


def test_tokens_are_marked_by_more_than_colour(show, rows_of):
    rows_of([{"prompt": "ab", "completion": "cdefghijklmnop"}], technique={"max_length": 8})
    app = show("training_data", study="tiny")
    text = next(element.proto.body for element in app.get("html") if ">a<" in element.proto.body)
    context, loss, cut = (text.index(tag) for tag in ('<span style="opacity', "<mark", "<s style"))
    assert context < text.index(">a<") < loss < text.index(">c<") < cut < text.index(">p<")
    assert "learned (has a loss)" in markup(app) and "truncated at max_length" in markup(app), "the legend"
    assert "16 tokens, 14 learned, 8 of them truncated" in captions(app)


@pytest.mark.parametrize("shape", ["preference", "messages", "text"])
def test_every_shape_is_shown(show, begin, shape):
    technique = {"kind": "dpo"} if shape == "preference" else {}
    metrics = {"preference": ["preference_accuracy"], "text": ["perplexity"]}.get(shape, ["exact_match"])
    decides = {"preference": "preference_accuracy"}.get(shape, "eval_loss")
    begin(shape=shape, technique=technique, evaluation={"metrics": metrics, "metric": decides})
    app = show("training_data", study="tiny")
    assert not app.error
    assert ("chosen: " in captions(app)) == (shape == "preference")


def test_hostile_rows_stay_text(show, rows_of):
    rows_of([{"prompt": HOSTILE, "completion": f"</span></mark>{HOSTILE}"}] * 2, technique={"max_length": 512})
    app = show("training_data", study="tiny")
    assert "<script" not in markup(app) and "&lt;" in markup(app) and "\x1b" not in markup(app)
    rendered = [element.value for kind in ("markdown", "caption", "info", "subheader") for element in app.get(kind)]
    assert not any("alert" in text for text in rendered)


def test_a_study_without_its_data_says_what_to_do(show, fill):
    fill.whole()
    app = show("training_data", study="itn")
    assert "has no prepared data in this home" in "\n".join(text.value for text in app.text)
    assert not app.dataframe


@pytest.mark.parametrize("study", ["nothing", HOSTILE])
def test_a_study_that_is_not_there(show, fill, study):
    fill.whole()
    app = show("training_data", study=study)
    assert app.error[0].value == "This cannot be shown."


def test_looking_changes_nothing(show, rows_of):
    rows_of([tiny.row("prompt_completion", number) for number in range(10)])

    def content():
        found = sorted(path for path in Home.current().folder.rglob("*") if path.is_file() and path.suffix != ".lock")
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in found if "-shm" not in path.name}

    before = content()
    show("training_data", study="tiny")
    assert content() == before


def test_it_is_looked_at_once(show, rows_of, monkeypatch):
    from sweeper_dashboard.data import training_data

    rows_of([tiny.row("prompt_completion", number) for number in range(10)])
    looked = []
    own = training_data.inspect_study
    monkeypatch.setattr(training_data, "inspect_study", lambda *arguments: looked.append(1) or own(*arguments))
    app = show("training_data", study="tiny")
    app.text_input(key="q").set_value("one").run()
    assert len(looked) == 1


def test_the_page_needs_no_torch():
    code = "import sys; from sweeper_dashboard.data import training_data; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
