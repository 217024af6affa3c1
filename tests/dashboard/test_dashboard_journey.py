"""What a person does with the dashboard, from end to end: a real browser, a real sweep in another process.

The pictures of all pages in both themes are kept in the folder that SWEEPER_SCREENSHOTS names.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser as chrome
import pytest
import tiny
import yaml
from playwright.sync_api import Locator, Page, expect
from safetensors import safe_open
from variants import mostly_long

from sweeper.paths import Home
from sweeper.registry import Registry, Stage
from sweeper.store import Database, StudyState

SLOW_MS = 120_000
SPACE = {
    "learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
    "lora_rank": [2, 4],
    "batch_size": 8,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
}


def write_study(folder: Path, name: str, model: Path, data: dict[str, str], **search: Any) -> Path:
    study = {
        "name": name,
        "model": str(model),
        "data": data,
        "technique": {"kind": "sft", "max_length": 64},
        "adapter": {"kind": "lora"},
        "search": {"known_good": False, "confirm": 0, **search},
        "evaluation": {"points": 3, "metrics": ["perplexity", "exact_match"], "max_new_tokens": 6, "candidates": 3},
        "executor": {"device": "cpu", "slots": 2},
        "seed": 3,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def running(home: Home, *arguments: str) -> subprocess.Popen[str]:
    """Start ``sweeper`` in a process of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "sweeper", *arguments],
        env={**os.environ, "SWEEPER_HOME": str(home.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Callable[[str], dict[str, str]]
) -> Home:
    """A home with a finished sweep whose best trial is v1 and whose worst is v2, both candidates."""
    folder = tmp_path_factory.mktemp("journey")
    home = Home(folder / "home")
    space = {**SPACE, "epochs": 4}
    enqueue = [{"learning_rate": rate, "lora_rank": 4} for rate in (1e-2, 3e-3, 2e-4)]
    study = write_study(
        folder,
        "digits",
        tiny_model,
        tiny_data("prompt_completion"),
        n_trials=3,
        space=space,
        enqueue=enqueue,
        pruner="none",
    )
    done = running(home, "run", str(study), "--force")
    said, _ = done.communicate(timeout=300)
    assert done.returncode == 0, said
    with Database.open(home.database, create=False) as database:
        registry = Registry(home, database)
        (first,) = registry.all("digits")
        scored = {
            of.number: score.score
            for of in database.evaluations.all("digits")
            for score in of.scores
            if of.number is not None and score.metric == "perplexity"
        }
        worst = max(scored, key=lambda number: scored[number])
        assert worst != first.lineage.trial and len(scored) == 3
        registry.register("digits", home.study("digits").trial(worst).adapter, study="digits", trial=worst)
    return home


@pytest.fixture(scope="module")
def shown(swept: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard of that home."""
    with chrome.serving(swept, tmp_path_factory.mktemp("shown") / "log") as served:
        yield served.url


def button(page: Page, name: str, *, within: str | None = None) -> Locator:
    """Return the button of this very name (an icon's name stands before it)."""
    root = page if within is None else page.locator(within)
    return root.get_by_role("button").filter(has_text=name).first


def tick(page: Page, table: Locator, rows: list[int]) -> None:
    """Tick the boxes before rows of a table, which is drawn on a canvas."""
    for row in rows:
        click_cell(page, table, 16, row)
        chrome.settled(page)


def click_cell(page: Page, table: Locator, x: float, row: int) -> None:
    """Click into a row of a table, so far from its left side."""
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + x, box["y"] + 52 + 35 * row)


def metric(page: Page, label: str) -> str:
    found = page.locator('[data-testid="stMetric"]').filter(has_text=label).first
    return str(found.locator('[data-testid="stMetricValue"]').inner_text())


@pytest.mark.long
def test_two_trials_are_picked_and_compared(shown, page):
    page.goto(f"{shown}/")
    chrome.settled(page)
    click_cell(page, page.locator('[data-testid="stDataFrame"]').first, 70, 0)
    page.wait_for_url(re.compile(r"/study\?.*study=digits"), timeout=SLOW_MS)
    chrome.settled(page)
    tick(page, page.locator('[data-testid="stDataFrame"]').first, [0, 2])
    page.wait_for_url(re.compile("trials="))
    picked = page.get_by_text("Selected: trials")
    expect(picked).to_be_visible()
    page.wait_for_function(  # what is picked in the table is picked in the chart
        """() => {
            const points = document.querySelectorAll('.js-plotly-plot .scatterlayer .trace:first-child .point');
            const shown = [...points].map(point => Number(getComputedStyle(point).opacity));
            return Math.min(...shown) < 0.5 && Math.max(...shown) === 1;
        }""",
        timeout=SLOW_MS,
    )
    page.get_by_role("link").filter(has_text="Compare these trials").click()
    page.wait_for_url(re.compile(r"/compare\?.*subjects=digits"))
    chrome.settled(page)
    expect(page.get_by_text("perplexity", exact=False).first).to_be_visible()
    assert "digits:" in page.locator('[data-testid="stMain"]').inner_text()
    page.reload()
    chrome.settled(page)
    assert page.locator('[data-testid="stException"], [data-testid="stAlertContentError"]').count() == 0


def stages(home: Home) -> dict[int, Stage]:
    with Database.open(home.database, create=False) as database:
        return {version.version: version.stage for version in Registry(home, database).all("digits")}


def test_a_version_passes_the_gate_and_a_worse_one_is_refused_forced_in_and_rolled_back(shown, page, swept):
    page.goto(f"{shown}/adapters?adapter=digits&version=1&section=Production")
    chrome.settled(page)
    button(page, "To staging").click()
    chrome.wait_until(lambda: stages(swept)[1] is Stage.STAGING, "it is not in staging", 30)
    chrome.settled(page)
    expect(page.get_by_text("The gate is open")).to_be_visible()
    button(page, "Promote to production").click()
    chrome.wait_until(lambda: stages(swept)[1] is Stage.PRODUCTION, "it is not promoted", 30)
    with Database.open(swept.database, create=False) as database:
        assert not database.actions.all(adapter="digits")[0].forced

    page.goto(f"{shown}/adapters?adapter=digits&version=2&section=Production")
    chrome.settled(page)
    button(page, "To staging").click()
    chrome.settled(page)
    promote = button(page, "Promote to production")
    expect(promote).to_be_disabled()
    assert "v1" in page.locator('[data-testid="stMain"]').inner_text()
    page.get_by_text("Override the gate").click()
    why = page.get_by_label("Reason (recorded; the promotion is marked as forced)")
    why.fill("the other one answers too slowly")
    why.press("Enter")
    chrome.settled(page)
    expect(promote).to_be_enabled()
    promote.click()
    chrome.wait_until(lambda: stages(swept)[2] is Stage.PRODUCTION, "it is not promoted", 30)
    assert stages(swept) == {1: Stage.ARCHIVED, 2: Stage.PRODUCTION}
    chrome.settled(page)
    with Database.open(swept.database, create=False) as database:
        assert database.actions.all(adapter="digits")[0].forced
    button(page, "Roll back to v1").click()
    chrome.wait_until(lambda: stages(swept)[1] is Stage.PRODUCTION, "it is not rolled back", 30)
    with Database.open(swept.database, create=False) as database:
        registry = Registry(swept, database)
        assert registry.get("digits", 1).stage is Stage.PRODUCTION
        assert registry.get("digits", 2).stage is Stage.ARCHIVED
        last = database.actions.all(adapter="digits")[0]
        assert (last.kind, last.forced) == ("rollback", False)


def test_an_adapter_is_exported_downloaded_and_opens(shown, page, swept):
    page.goto(f"{shown}/adapters?adapter=digits&version=1&section=Export")
    chrome.settled(page)
    page.locator(".st-key-export-adapter button").click()
    download = page.locator(".st-key-download-adapter button")
    expect(download).to_be_visible(timeout=SLOW_MS)
    with page.expect_download() as waiting:
        download.click()
    archive = zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes()))
    names = {Path(name).name for name in archive.namelist()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= names
    weights = swept.folder / "downloaded.safetensors"
    weights.write_bytes(archive.read(next(name for name in archive.namelist() if name.endswith(".safetensors"))))
    with safe_open(weights, framework="numpy") as tensors:
        assert any("lora_A" in name for name in tensors.keys())  # noqa: SIM118 - it is no mapping


def test_versions_answer_in_the_playground_and_feedback_is_kept(shown, page, swept):
    page.goto(f"{shown}/playground?adapters=digits@1,digits@2")
    chrome.settled(page)
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill(tiny.row("prompt_completion", 500)["prompt"])
    prompt.press("Control+Enter")
    chrome.settled(page)
    button(page, "Run").click()
    good = page.get_by_role("button").filter(has_text="Good")
    expect(good.first).to_be_visible(timeout=SLOW_MS)
    expect(good).to_have_count(2)
    chrome.settled(page)
    good.first.click()
    chrome.settled(page)
    expect(good.first).to_be_disabled()
    with Database.open(swept.database, create=False) as database:
        (given,) = database.feedback.all(adapter="digits")
    assert given.good and given.prompt == tiny.row("prompt_completion", 500)["prompt"]


@pytest.fixture
def live(
    tmp_path: Path, home: Home, tiny_model: Path, tiny_data: Callable[[str], dict[str, str]]
) -> Iterator[subprocess.Popen[str]]:
    """A sweep that runs in another process, for longer than anyone looks at it."""
    space = {**SPACE, "epochs": 60}
    study = write_study(
        tmp_path, "live", tiny_model, tiny_data("prompt_completion"), n_trials=60, space=space, sampler="random"
    )
    process = running(home, "run", str(study))
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)


def steps_taken(home: Home) -> int:
    with Database.open(home.database, create=False) as database:
        return sum(trial.steps for trial in database.trials.all("live"))


def begun(home: Home) -> int:
    if not home.database.exists():
        return 0
    with Database.open(home.database, create=True) as database:
        return len(database.trials.all("live")) if database.studies.find("live") else 0


def test_a_sweep_in_another_process_is_watched_paused_cloned_into_and_stopped(serve, page, home, live):
    chrome.wait_until(lambda: live.poll() is not None or begun(home) >= 2, "the sweep does not begin", 180)
    assert live.poll() is None, live.communicate()[0]
    url = serve(home).url
    page.goto(f"{url}/study?study=live")
    chrome.settled(page)
    assert metric(page, "State") == "running"
    epochs = metric(page, "Epochs trained")
    done = metric(page, "Trials")
    chrome.wait_until(
        lambda: (metric(page, "Trials"), metric(page, "Epochs trained")) != (done, epochs), "nothing advances", 120
    )

    page.goto(f"{url}/control?study=live")
    chrome.settled(page)
    page.locator(".st-key-pause button").click()
    chrome.wait_until(lambda: "paused" in metric(page, "State"), "it is not paused", 60)
    before = steps_taken(home)
    page.wait_for_timeout(2500)
    assert steps_taken(home) == before, "no step is taken while it is paused"
    page.locator(".st-key-resume button").click()
    chrome.wait_until(lambda: "running" in metric(page, "State"), "it does not go on", 60)

    page.goto(f"{url}/control?study=live&clone=0")
    chrome.settled(page)
    rate = page.get_by_label("learning_rate").last
    rate.fill("0.0123")
    rate.press("Enter")
    chrome.settled(page)
    button(page, "Run clone").click()
    chrome.settled(page)
    chrome.wait_until(lambda: _clones(home) == [0.0123], "the clone is not run", 120)

    page.locator(".st-key-stop button").click()
    button(page, "Stop the study").click()
    chrome.wait_until(lambda: live.poll() is not None, "it does not stop", 120)
    with Database.open(home.database, create=False) as database:
        assert database.studies.get("live").state is StudyState.INTERRUPTED
        kinds = [order.kind.value for order in database.orders.all("live")]
    assert sorted(kinds) == ["clone", "pause", "resume", "stop"]


def _clones(home: Home) -> list[float]:
    with Database.open(home.database, create=False) as database:
        return [t.parameters["learning_rate"] for t in database.trials.all("live") if t.clones == 0]


PAGES = {
    "studies": "/",
    "study": "/study?study=digits",
    "curves": "/study?study=digits&section=Curves",
    "parameters": "/study?study=digits&section=Parameters",
    "schedule": "/study?study=digits&section=Schedule",
    "trial": "/trial?study=digits&trial=1",
    "compare": "/compare?subjects=digits:0,digits:2,digits:base&reference=digits:2",
    "control": "/control?study=digits",
    "data": "/data?study=digits",
    "adapters": "/adapters?adapter=digits&version=1",
    "gate": "/adapters?adapter=digits&version=2&section=Production",
    "playground": "/playground?adapters=digits@1,digits@2",
}


@pytest.mark.long
def test_pictures_of_all_pages_in_both_themes(shown, page, tmp_path, monkeypatch):
    if "SWEEPER_SCREENSHOTS" not in os.environ:
        monkeypatch.setenv("SWEEPER_SCREENSHOTS", str(tmp_path / "pictures"))
    for name, address in PAGES.items():
        page.goto(f"{shown}{address}")
        light, dark = (chrome.shot(page, name, theme) for theme in ("light", "dark"))
        assert page.locator('[data-testid="stException"], [data-testid="stAlertContentError"]').count() == 0, name
        assert light.read_bytes() != dark.read_bytes(), name


@pytest.mark.parametrize("name", mostly_long(["studies", "study", "compare", "adapters"], "study"))
def test_pages_fit_a_phone(shown, page, name):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{shown}{PAGES[name]}")
    chrome.settled(page)
    wider = page.evaluate("() => document.querySelector('[data-testid=\"stMain\"]').scrollWidth - window.innerWidth")
    assert wider <= 0, "nothing is cut off at the right"


def test_pages_are_reached_by_the_keyboard(shown, page):
    page.goto(f"{shown}/")
    chrome.settled(page)
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.innerText || document.activeElement.tagName"))
    links = [text for text in reached if "Compare" in text or "Adapters" in text]
    assert len(links) == 2, json.dumps(reached)
