"""The adapters page: the list, the gate, what people write on versions, exports, and what viewers may not do."""

from __future__ import annotations

import time
import zipfile
import zlib

import pytest
from filled_home import HOSTILE
from judged import Judged, weak_and_strong
from test_dashboard_pages import _files, _rendered, _text

import sweeper_dashboard.session
from sweeper.errors import RegistryError, SweeperError
from sweeper.export.writer import FORMATS
from sweeper.files.atomic import write_json
from sweeper.paths import Home
from sweeper.registry import Registry, Stage
from sweeper.store import Database
from sweeper_dashboard.charts import adapters as charts
from sweeper_dashboard.data import adapters as data
from sweeper_dashboard.data import changes, exports, jobs

GOOD, POOR = [1.0] * 30 + [0.0] * 10, [1.0] * 10 + [0.0] * 30


@pytest.fixture
def judged(home, tmp_path):
    """The adapter ``itn``: v1 poor and in production, v2 good, v3 as poor as v1, both in staging."""
    with Database.open(home.database, create=True) as database:
        found = Judged(home, database, tmp_path)
        found.study()
        found.score(None, POOR)
        found.version(0, POOR, stage=Stage.PRODUCTION)
        found.version(1, GOOD)
        found.version(2, POOR[::-1])
        yield found


@pytest.fixture
def viewer(monkeypatch):
    monkeypatch.setattr(sweeper_dashboard.session, "user", lambda: sweeper_dashboard.session.User("victor", "viewer"))


def button(app, label):
    (found,) = [each for each in app.button if each.label == label]
    return found


def badges(app):
    return " ".join(str(each.value) for each in app.markdown)


def stages(judged):
    return [of.stage.value for of in judged.registry.all("itn")]


def select(app, row):
    """Pick a row of the list as a click does."""
    listed = app.dataframe[0].value
    labels = list(zip(listed["adapter"], (int(number) for number in listed["version"]), strict=True))
    key = f"adapters {zlib.crc32(repr(labels).encode())}"
    app.session_state[key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return app.run()


def test_versions_are_listed_and_the_picked_one_is_in_the_address(show, judged):
    judged.registry.set_alias("itn", 2, "champion")
    app = show("adapters")
    listed = app.dataframe[0].value
    assert list(listed["version"]) == [3, 2, 1] and list(listed["stage"].map(list)) == [["staging"]] * 2 + [
        ["production"]
    ]
    assert [subheader.value for subheader in app.subheader] == ["itn v3"], "the newest until one is picked"
    select(app, 1)
    assert (app.query_params["adapter"], app.query_params["version"]) == ("itn", "2")
    assert app.subheader[0].value == "itn v2" and "champion" in _text(app)
    assert {metric.label: metric.value for metric in app.metric}["Score on test"] == "0.75"
    assert "trial 1" in str(app.get("plotly_chart")[0].proto)


def test_an_address_opened_after_a_click_is_not_overruled_by_it(show, judged):
    app = select(show("adapters"), 1)
    app.query_params["version"] = "1"
    app.run()
    assert app.subheader[0].value == "itn v1"


def test_search_and_stages_narrow_the_list(show, judged):
    judged.registry.set_tags("itn", 2, ["German"])
    app = show("adapters")
    app.text_input(key="search").set_value("german itn").run()
    assert list(app.dataframe[0].value["version"]) == [2]
    app.text_input(key="search").set_value("nowhere").run()
    assert [info.value for info in app.info] == ["No versions match these filters."]
    app.text_input(key="search").set_value("").run()
    app.button_group(key="stages").set_value(["production"]).run()
    assert list(app.dataframe[0].value["version"]) == [1]


@pytest.mark.parametrize("query", [{"adapter": "itm", "version": "1"}, {"adapter": "itn", "version": "99"}])
def test_an_unknown_version_in_the_address_is_a_clear_page(show, judged, query):
    app = show("adapters", **query)
    assert [error.value for error in app.error] == ["This cannot be shown."]
    assert "itn" in _text(app)


def test_a_better_version_is_promoted_by_the_button(show, judged):
    app = show("adapters", adapter="itn", version="2", section="Production")
    assert "The gate is open" in badges(app)
    assert "itn v2 against itn v1, exact_match on 40 test examples: gain +0.5" in _text(app)
    button(app, "Promote to production").click().run()
    assert stages(judged) == ["archived", "production", "staging"]
    assert "itn v2 is now production" in _text(app)
    action = judged.registry.history("itn")[0]
    assert (action.actor, action.kind, action.forced) == (sweeper_dashboard.session.user().name, "promote", False)


def test_a_worse_version_is_refused_and_forcing_it_needs_a_reason_and_is_marked(show, judged):
    app = show("adapters", adapter="itn", version="3", section="Production")
    assert "The gate is closed" in badges(app) and "must lie above the margin" in _text(app)
    assert button(app, "Promote to production").disabled
    app.toggle[0].set_value(True).run()
    assert button(app, "Promote to production").disabled, "a reason is due"
    app.text_input(key="reason itn 3").set_value(HOSTILE).run()
    button(app, "Promote to production").click().run()
    assert stages(judged) == ["archived", "staging", "production"]
    app = show("adapters", adapter="itn", version="3", section="History")
    assert "2 forced actions" in badges(app), "the first of all was forced as well"
    row = app.dataframe[1].value.iloc[0]
    assert (row["what"], row["forced"], row["version"]) == ("promote", "FORCED", 3)
    assert "<script>" in row["in words"] and "\x1b" not in row["in words"]


def test_the_gate_is_asked_again_when_the_button_is_pressed(judged):
    """What the page showed may be an hour old."""
    assert changes.judgement("itn", 2).passed
    judged.registry.move("itn", 2, Stage.PRODUCTION)
    judged.version(3, GOOD)
    with pytest.raises(RegistryError, match="itn v4 stays staging"):
        changes.move("itn", 4, "production", "ann")


def test_the_verdict_follows_new_scores_and_new_stages(judged):
    assert changes.judgement("itn", 2).passed and not changes.judgement("itn", 3).passed
    judged.score(2, [1.0] * 40)
    assert changes.judgement("itn", 3).passed
    judged.registry.move("itn", 2, Stage.PRODUCTION)
    assert changes.judgement("itn", 3).against == "itn v2"


def test_the_verdict_follows_what_becomes_of_the_version_in_production(judged):
    """Production is empty all the while after the first, yet the opponent is another one each time."""
    judged.registry.move("itn", 2, Stage.PRODUCTION)
    found = [changes.judgement("itn", 3).against]
    judged.registry.move("itn", 2, Stage.ARCHIVED)
    found.append(changes.judgement("itn", 3).against)
    assert changes.judgement("itn", 3) == judged.registry.judge("itn", 3)
    judged.registry.move("itn", 2, Stage.CANDIDATE)
    found.append(changes.judgement("itn", 3).against)
    judged.registry.move("itn", 2, Stage.ARCHIVED)
    for version in (2, 1):
        judged.registry.delete("itn", version)
        found.append(changes.judgement("itn", 3).against)
    assert found == [
        "itn v2",
        "itn v2 (the last in production, now archived)",
        "itn v2 (the last in production, now candidate)",
        "itn v1 (the last in production, now archived)",
        "the base model of itn v3",
    ]


def test_rolling_back(show, judged):
    app = show("adapters", adapter="itn", version="2", section="Production")
    assert not [each for each in app.button if each.label.startswith("Roll back")], "nothing was there before"
    judged.registry.move("itn", 2, Stage.PRODUCTION)
    app = show("adapters", adapter="itn", version="2", section="Production")
    assert [each.value for each in app.caption if "marked as forced" in each.value], "v1 was no better than its base"
    app.text_input(key="rollback reason itn").set_value("it swears").run()
    button(app, "Roll back to v1").click().run()
    assert stages(judged) == ["production", "archived", "staging"]
    back = "itn v1 is back in production instead of itn v2, though it had been forced in against the gate"
    action = judged.registry.history("itn")[0]
    assert (action.kind, action.forced, action.message) == ("rollback", True, f"{back}: it swears")


def test_rolling_back_to_what_passed_the_gate_is_no_force(show, judged):
    judged.registry.move("itn", 2, Stage.PRODUCTION)
    judged.registry.move("itn", 3, Stage.PRODUCTION, force=True)
    app = show("adapters", adapter="itn", version="3", section="Production")
    assert not [each.value for each in app.caption if "marked as forced" in each.value]
    button(app, "Roll back to v2").click().run()
    assert "itn v2 is back in production" in _text(app) and "against the gate" not in _text(app)
    assert judged.registry.history("itn")[0].forced is False


def test_stage_moves_aliases_tags_and_notes(show, judged):
    app = show("adapters", adapter="itn", version="2", section="Production")
    button(app, "Back to candidate").click().run()
    assert stages(judged) == ["production", "candidate", "staging"]
    app = show("adapters", adapter="itn", version="2")
    (note,) = app.text_area
    note.set_value(HOSTILE)
    app.text_input[1].set_value("german, short,")
    button(app, "Save tags and note").click().run()
    found = judged.registry.get("itn", 2)
    assert found.tags == ("german", "short") and found.note.startswith("<script>")
    app.text_input(key="alias itn 2").set_value("champion").run()
    button(app, "Add").click().run()
    assert judged.registry.get("itn", 2).aliases == ("champion",)
    app.text_input(key="alias itn 2").set_value("production").run()
    button(app, "Add").click().run()
    assert app.error and "would be mistaken for a version" in _text(app)
    app = show("adapters", adapter="itn", version="2")
    button(app, "Remove").click().run()
    assert judged.registry.get("itn", 2).aliases == ()


def test_what_changed_against_another_version(show, judged):
    app = show("adapters", adapter="itn", version="2", section="Changes")
    app.selectbox[0].select(1).run()
    scores, facts = app.dataframe[1].value, app.dataframe[2].value
    assert scores.loc[0, "difference"] == pytest.approx(0.5) and scores.loc[0, "verdict"] == "better"
    assert list(facts["what"]) == ["seeds: trial", "origin: trial"]


def test_viewers_see_all_and_change_nothing(show, judged, viewer):
    judged.registry.set_alias("itn", 2, "champion")
    before = _files(judged.home)
    for section in ("Overview", "Production", "Changes", "Export", "History"):
        app = show("adapters", adapter="itn", version="2", section=section)
        assert not app.error
        assert all(each.disabled for each in app.button), section
    assert _files(judged.home) == before


def test_hostile_texts_are_only_ever_plain_text(show, judged):
    judged.registry.set_tags("itn", 2, [HOSTILE[:40].replace(",", "")])
    judged.registry.annotate("itn", 2, HOSTILE)
    judged.registry.move("itn", 3, Stage.PRODUCTION, force=True, actor=HOSTILE, reason=HOSTILE)
    for section in ("Overview", "Production", "Changes", "Export", "History"):
        app = show("adapters", adapter="itn", version="2", section=section)
        assert not app.error and len(app.get("html")) == 1
        for shown in _rendered(app):
            assert not any(mark in shown for mark in ("<script", "javascript:", "**b**", ":red[")), (section, shown)


def test_the_weights_that_a_version_began_from_are_in_its_lineage(show, judged):
    paths = judged.home.study("itn")
    write_json(paths.trial(3).spec, {"initial_adapter": str(paths.trial(1).adapter)})
    judged.version(3, GOOD)
    facts = {version: data.adapter("itn", version).origin.set_index("what")["value"] for version in (2, 4)}
    assert facts[4]["started from the weights of trial"] == "1" and "started from the weights of trial" not in facts[2]
    app = show("adapters", adapter="itn", version="4")
    assert not app.error and "weights of trial 1" in str(app.get("plotly_chart")[0].proto)


def test_lineage_escapes_what_it_draws():
    drawn = charts.lineage(["base <b>x</b>", "train data"], "study <i>", "trial 1", "itn v2", "itn v1").to_json()
    assert (
        "<b>" not in drawn
        and "<i>" not in drawn
        and "&lt;b&gt;" in drawn.replace("\\u003c", "<").replace("\\u0026", "&")
    )
    assert "replaces itn v1" in drawn


def test_every_format_has_its_button(show, judged):
    assert exports.FORMATS.keys() == FORMATS.keys()
    app = show("adapters", adapter="itn", version="2", section="Export")
    assert [each.label for each in app.button] == ["Export"] * len(FORMATS)


def ended(look, seconds=240):
    """Wait for a command in a process of its own."""
    until = time.monotonic() + seconds
    while look().state == "running" and time.monotonic() < until:
        time.sleep(0.2)
    return look()


def test_a_failing_command_says_why_and_is_not_started_twice(judged):
    exports.start("itn", 2, "merged", "ann")
    with pytest.raises(SweeperError, match="already running"):
        exports.start("itn", 2, "merged", "ann")
    job = ended(lambda: exports.export("itn", 2, "merged").job)
    assert job.state == "failed" and "spec.json is gone" in job.said
    assert [action.kind for action in judged.registry.history("itn")][:1] == ["export"]
    assert jobs.look("export-itn-v3-trl").state == "none"


def test_scoring_for_the_gate_and_an_export_that_opens_again(show, study_file, tmp_path):
    """All from the page: score the version in production, promote past it, export, download, and load what came."""
    weak_and_strong(study_file)
    app = show("adapters", adapter="tiny", version="2", section="Production")
    assert "Not compared yet" in badges(app) and button(app, "Promote to production").disabled
    button(app, "Score now").click().run()
    assert "tiny v2 is being scored" in _text(app)
    job = ended(lambda: changes.scoring("tiny", 2))
    assert job.state == "done", job.said
    app = show("adapters", adapter="tiny", version="2", section="Production")
    assert "tiny v2 against tiny v1, exact_match on 10 test examples" in _text(app)
    button(app, "Promote to production").click().run()
    assert data.production("tiny") == 2

    app = show("adapters", adapter="tiny", version="2", section="Export")
    app.button(key="export adapter").click().run()
    job = ended(lambda: exports.export("tiny", 2, "adapter").job)
    assert job.state == "done", job.said
    app = show("adapters", adapter="tiny", version="2", section="Export")
    assert "Written and verified" in badges(app)
    assert "adapter_model.safetensors" in list(app.dataframe[1].value["file"])
    folder = Home.current().folder / "exports" / "tiny-v2-adapter"
    assert str(folder) in _text(app) and exports.export("tiny", 2, "adapter").downloadable
    with zipfile.ZipFile(exports.zipped("tiny", 2, "adapter")) as archive:
        archive.extractall(tmp_path / "unpacked")
    with Database.open(Home.current().database, create=False) as database:
        registered = Registry(Home.current(), database).get("tiny", 2)
    _same_weights(tmp_path / "unpacked" / "tiny-v2-adapter", registered.folder)


def _same_weights(one, other):
    from safetensors.numpy import load_file

    found, due = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert found.keys() == due.keys() and found
    assert all((found[name] == due[name]).all() for name in found)
