"""The dashboard in a real browser: it starts, every page opens, and nothing of it is left running."""

from __future__ import annotations

import browser as chrome
import pytest

PAGES = ("", "study", "trial", "compare", "control", "data", "adapters", "playground")


def test_every_page_opens_in_a_browser(serve, page, fill, home):
    fill.whole()
    served = serve(home)
    for path in PAGES:
        page.goto(f"{served.url}/{path}")
        chrome.settled(page)
        assert page.locator('[data-testid="stException"]').count() == 0, path
        assert page.locator("h1, h2").first.inner_text(), path


@pytest.mark.long
def test_pictures_differ_by_theme_and_show_the_whole_page(serve, page, fill, home, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPER_SCREENSHOTS", str(tmp_path / "shots"))
    fill.whole()
    page.goto(f"{serve(home).url}/study?study=itn")
    light, dark = (chrome.shot(page, "study", theme) for theme in ("light", "dark"))
    assert light.read_bytes() != dark.read_bytes()
    assert page.viewport_size == chrome.SCREEN
    height = int.from_bytes(light.read_bytes()[20:24])
    assert height > chrome.SCREEN["height"]


def test_errors_of_scripts_fail_a_test(browser):
    throws = "setTimeout(() => { throw new Error('broken') })"
    with (
        pytest.raises(AssertionError, match="broken"),
        chrome.opened(browser) as page,
        page.expect_event("pageerror"),
    ):
        page.evaluate(throws)


def test_serving_leaves_no_process(home, fill, tmp_path):
    fill.study()
    with chrome.serving(home, tmp_path / "log") as served:
        assert served.process.poll() is None
    assert served.process.returncode == 0, served.output()
    assert not chrome._group_lives(served.process.pid)
