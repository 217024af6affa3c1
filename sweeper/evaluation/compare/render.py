"""Reports as Markdown, or as one self-contained HTML page without scripts, fonts or network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path

from sweeper.errors import UserError
from sweeper.evaluation.compare.report import Answers, Bars, ComparisonReport, Curves, Part, Table, Words
from sweeper.evaluation.compare.svg_charts import Bar, interval_chart, line_chart
from sweeper.evaluation.compare.text_diff import LEGEND, marked_html, marks, plain_html
from sweeper.evaluation.report import escape
from sweeper.files.atomic import write_atomically

_LONGEST = 4_000
_TEXT_WIDTH = 41
_X_TITLE = "% of the trial's training"

_STYLE = """
:root { color-scheme: light dark; --line: #d5dbe5; --soft: #f3f5f9; --quiet: #5b6577; --ink: #172033; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --line: #2b3546; --soft: #192130; --quiet: #9aa6ba; --ink: #e6ebf4; --paper: #0f141d; }
}
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
.made, .note { color: var(--quiet); } .verdict { font-size: 1.15rem; font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.35rem 0.7rem; text-align: left; vertical-align: top; }
td { min-width: 4.5rem; } tr.strong td { font-weight: 650; }
pre { background: var(--soft); border-radius: 6px; padding: 0.6rem 0.8rem; white-space: pre-wrap; margin: 0.2rem 0; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 0.8rem; }
ins { text-decoration: underline 2px; background: #17a39833; } del { background: #e4572e33; }
svg { width: 100%; max-width: 860px; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif;
  fill: var(--ink); } svg .label { text-anchor: end; } svg .tick { text-anchor: middle; fill: var(--quiet); }
svg .grid { stroke: var(--line); } svg .zero { stroke: var(--quiet); stroke-width: 1.5; stroke-dasharray: 4 3; }
"""


def write_report(report: ComparisonReport, file: Path) -> None:
    """Write a report as Markdown or HTML, by the file's ending.

    Raises:
        UserError: If the ending is neither ``.md`` nor ``.html``, or the file cannot be written.
    """
    renderers = {".md": markdown, ".html": html}
    if file.suffix.lower() not in renderers:
        raise UserError(f"the format of {file} is unknown: its name must end in .md or .html")
    try:
        write_atomically(file, renderers[file.suffix.lower()](report))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error


def html(report: ComparisonReport) -> str:
    """Return a report as one HTML page; all text in it is escaped."""
    body = [
        f"<h1>{plain_html(report.title)}</h1>",
        f'<p class="made">{plain_html(report.made)}</p>',
        f'<p class="verdict">{plain_html(report.headline)}</p>',
    ]
    for section in report.sections:
        body += [f"<section><h2>{plain_html(section.title)}</h2>", *map(_html, section.parts), "</section>"]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{plain_html(report.title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def markdown(report: ComparisonReport) -> str:
    """Return a report as Markdown; all text in it is escaped."""
    blocks = [f"# {escape(report.title, _LONGEST)}", escape(report.made), f"**{escape(report.headline, _LONGEST)}**"]
    for section in report.sections:
        blocks += [f"## {escape(section.title)}", *map(_markdown, section.parts)]
    return "\n\n".join(block for block in blocks if block) + "\n"


@singledispatch
def _html(part: Part) -> str:
    raise TypeError(f"no HTML for a {type(part).__name__}")


@_html.register
def _(part: Words) -> str:
    return "".join(f"<p>{plain_html(paragraph)}</p>" for paragraph in part.paragraphs)


@_html.register
def _(part: Table) -> str:
    head = "".join(f"<th>{plain_html(cell)}</th>" for cell in part.header)
    rows = [
        f"<tr{' class=strong' * (place in part.strong)}>{''.join(f'<td>{plain_html(cell)}</td>' for cell in row)}</tr>"
        for place, row in enumerate(part.rows)
    ]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


@_html.register
def _(part: Bars) -> str:
    return interval_chart(part.bars, zero=part.zero)


@_html.register
def _(part: Curves) -> str:
    return line_chart(part.lines, _X_TITLE)


@_html.register
def _(part: Answers) -> str:
    (_, _, against), *_others = part.texts
    blocks = {"Prompt": part.prompt, "Reference answer": part.due}
    given = "".join(f"<div>{heading}<pre>{plain_html(text)}</pre></div>" for heading, text in blocks.items())
    answers = "".join(
        f"<div>{plain_html(name)} <span class=note>{plain_html(score)}</span>"
        f"<pre>{marked_html(text, against)}</pre></div>"
        for name, score, text in part.texts
    )
    return (
        f"<h3>{plain_html(part.title)}</h3><div class=answers>{given}</div>"
        f"<div class=answers>{answers}</div><p class=note>{LEGEND}</p>"
    )


@singledispatch
def _markdown(part: Part) -> str:
    raise TypeError(f"no Markdown for a {type(part).__name__}")


@_markdown.register
def _(part: Words) -> str:
    return "\n\n".join(escape(paragraph, _LONGEST) for paragraph in part.paragraphs)


@_markdown.register
def _(part: Table) -> str:
    rows = [
        [f"**{escape(cell)}**" if place in part.strong and cell else escape(cell) for cell in row]
        for place, row in enumerate(part.rows)
    ]
    return _table([escape(cell) for cell in part.header], rows)


@_markdown.register
def _(part: Bars) -> str:
    return _drawn(part.bars, zero=part.zero)


@_markdown.register
def _(part: Curves) -> str:
    header = ["", _X_TITLE, "value"]
    ends = [
        (name, *line[place])
        for name, line in part.lines.items()
        for place in sorted({0, len(line) // 2, len(line) - 1})
    ]
    rows = [[escape(name), f"{x:g}", f"{y:.4g}"] for name, x, y in ends]
    note = "First, middle and last value of each; the HTML report draws the full curves."
    return f"{_table(header, rows)}\n\n{note}"


@_markdown.register
def _(part: Answers) -> str:
    (_, _, against), *_others = part.texts
    rows = [("prompt", "", escape(part.prompt, _LONGEST)), ("reference answer", "", escape(part.due, _LONGEST))]
    rows += [(escape(name), escape(score), _marked(text, against)) for name, score, text in part.texts]
    return f"### {escape(part.title)}\n\n{_table(['', 'score', 'text'], rows)}\n\n{LEGEND[0].upper()}{LEGEND[1:]}."


def _marked(here: str, there: str) -> str:
    tags = {"same": "{}", "only here": "<ins>{}</ins>", "only there": "<del>{}</del>"}
    return "".join(tags[mark.kind].format(escape(mark.text, _LONGEST)) for mark in marks(here, there))


def _drawn(bars: Sequence[Bar], *, zero: bool) -> str:
    """Return intervals drawn in characters, as an indented code block."""
    ends = [end for bar in bars for end in (bar.value, bar.low, bar.high) if end is not None and abs(end) < 1e300]
    low, high = min([*ends, *[0.0] * zero], default=0.0), max([*ends, *[0.0] * zero], default=1.0)

    def place(value: float) -> int:
        return round((value - low) / ((high - low) or 1.0) * (_TEXT_WIDTH - 1))

    width = max((len(bar.label) for bar in bars), default=0)
    lines = []
    for bar in bars:
        cells = [" "] * _TEXT_WIDTH
        if bar.low is not None and bar.high is not None and abs(bar.low) + abs(bar.high) < 1e300:
            cells[place(bar.low) : place(bar.high) + 1] = "-" * (place(bar.high) - place(bar.low) + 1)
        if zero:
            cells[place(0.0)] = ":"
        if abs(bar.value) < 1e300:
            cells[place(bar.value)] = "o"
        lines.append(f"    {_one_line(bar.label):{width}} |{''.join(cells)}| {bar.value:{'+' * zero}.3f}")
    return "\n".join(lines)


def _one_line(label: str) -> str:
    """Return a label on one line, for an indented block."""
    return " ".join("".join(c if c.isprintable() else " " for c in label).split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
