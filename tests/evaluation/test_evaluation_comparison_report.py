"""The report holds all there is, opens without a network, and shows every text letter by letter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from compared import GOOD, POOR, study, subject

from sweeper.errors import UserError
from sweeper.evaluation.compare.render import html, markdown, write_report
from sweeper.evaluation.compare.report import (
    SHOWN_EXAMPLES,
    ComparisonReport,
    Curves,
    comparison_report,
    differing_examples,
)
from sweeper.evaluation.compare.side_by_side import side_by_side
from sweeper.evaluation.compare.svg_charts import Bar, interval_chart, line_chart
from sweeper.evaluation.compare.text_diff import marked_html, marks

HOSTILE = (
    "<script>alert(1)</script> [x](javascript:alert(1)) **b** | $x$ \x1b[31m \u202eabc ~~~ ![i](http://e.vil/i)\n# h"
)
NOW = datetime(2026, 5, 4, 3, 2, tzinfo=UTC)


class Page(HTMLParser):
    """What a browser makes of a page: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "every tag is closed in its turn"

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def report() -> ComparisonReport:
    metrics = ("exact_match", "token_f1", "eval_loss")
    one = subject(3, GOOD, metrics=metrics, text=HOSTILE, adapter_sha256="d" * 64)
    other = subject(1, POOR, metrics=metrics, text="plain", of=study(base_model=HOSTILE))
    other = replace(other, examples=tuple(replace(e, prompt=HOSTILE) for e in other.examples))
    one = replace(one, examples=tuple(replace(e, prompt=HOSTILE) for e in one.examples))
    found = side_by_side([one, other], reference="itn:1")
    curves = Curves(
        "eval_loss", {"itn:3": ((33, 2.0), (67, float("nan")), (100, 1.0)), "itn:1": ((50, 3.0), (100, 2.0))}
    )
    return comparison_report(found, curves, now=NOW)


def test_the_page_is_whole_and_needs_nothing_else(report):
    page = Page(html(report))
    assert not page.open
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "a", "object", "form"} & set(tags)
    assert tags.count("svg") == 7, "scores and differences of three metrics, and the curves"
    for _, attributes in page.tags:
        assert not {"src", "href"} & set(attributes) and not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for needed in (
        "2026-05-04 03:02 UTC",
        "itn:3 is significantly better than itn:1",
        "f" * 64,
        "d" * 64,
        "a" * 64,
        "learning_rate",
    ):
        assert needed in page.text
    assert "<script>alert(1)</script>" in page.text, "hostile text is shown as text"
    assert "\x1b" not in page.text and "\u202e" not in page.text


def test_the_markdown_says_the_same_and_nothing_of_it_is_read(report):
    text = markdown(report)
    for needed in (
        r"# Comparison of itn\:3, itn\:1",
        r"itn\:3 is significantly better than itn\:1",
        "## Verdict",
        "f" * 64,
        "Example 10",
    ):
        assert needed in text
    assert "<script" not in text and "![i](" not in text and "**b**" not in text and "\x1b" not in text
    body = text.replace("# Comparison", "").splitlines()
    assert not [line for line in body if line.startswith("# ")], "no heading from a text"
    rows = [line for line in body if line.startswith("|")]
    assert rows and all(line.endswith("|") for line in rows)
    assert "<ins>" in text and "<del>" in text
    assert sum("|" in line and "o" in line for line in body if line.startswith("    ")) == 2 * 3 + 3


def test_only_so_many_examples_are_shown_losses_among_them():
    found = side_by_side([subject(1, POOR), subject(2, [0.0] * 5 + [1.0] * 45)])
    order = differing_examples(found)
    assert order[:4] == [0, 10, 1, 11], "losses and wins in turn"
    shown = [part for section in comparison_report(found).sections for part in section.parts if hasattr(part, "due")]
    assert len(shown) == SHOWN_EXAMPLES < len(order)


def test_a_report_without_scores_has_no_empty_parts():
    found = side_by_side([subject(1, []), subject(2, [])])
    page = Page(html(comparison_report(found)))
    assert "cannot be ranked" in page.text and "svg" not in [tag for tag, _ in page.tags]
    assert "cannot be ranked" in markdown(comparison_report(found))


def test_the_ending_says_what_is_written(report, tmp_path):
    for name in ("report.md", "report.HTML"):
        write_report(report, tmp_path / name)
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# Comparison")
    assert (tmp_path / "report.HTML").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"must end in \.md or \.html"):
        write_report(report, tmp_path / "report.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report(report, tmp_path / "file" / "report.md")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("a b c", "a x c"),
        ("", "all of it"),
        ("all of it", ""),
        ("same", "same"),
        ("a\n\nb  c", "a b c"),
        (HOSTILE, "b"),
    ],
)
def test_marks_give_both_texts_back(here, there):
    found = marks(here, there)
    assert "".join(mark.text for mark in found if mark.kind != "only there") == here
    assert "".join(mark.text for mark in found if mark.kind != "only here") == there
    assert (len(found) <= 1) == (here == there or not here or not there)


def test_marks_are_by_word_and_escaped():
    assert [(m.kind, m.text) for m in marks("one two four", "one three four")] == [
        ("same", "one "),
        ("only there", "three"),
        ("only here", "two"),
        ("same", " four"),
    ]
    assert marked_html("a <b>", "a <i>") == "a &lt;<del>i</del><ins>b</ins>&gt;"
    assert "<script" not in marked_html(HOSTILE, "x") and "\\x1b" in marked_html(HOSTILE, "x")


def test_long_texts_that_differ_everywhere_are_marked_as_a_whole():
    here, there = " ".join(f"a{n}" for n in range(3000)), " ".join(f"b{n}" for n in range(3000))
    assert [mark.kind for mark in marks(f"same {here} same", f"same {there} same")] == [
        "same",
        "only there",
        "only here",
        "same",
    ]


def test_charts_hold_every_value_and_no_markup_of_a_name():
    drawn = interval_chart(
        [Bar("<b>x", 0.5, 0.4, 0.7), Bar("y", 0.1, None, None), Bar("z", float("inf"), 0, 1)], zero=True
    )
    assert drawn.count("<circle") == 2 and drawn.count('stroke-width="3"') == 1 and "&lt;b&gt;x" in drawn
    lines = line_chart({"one": [(0, 1.0), (50, float("nan")), (100, 2.0)], "<i>": [(0, 3.0)]}, "x")
    assert lines.count("<polyline") == 3 and "&lt;i&gt;" in lines
    assert line_chart({"none": [(0, float("nan"))]}, "x") == ""
