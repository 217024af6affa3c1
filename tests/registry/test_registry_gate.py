"""The gate to production: what passes, what does not and why, and that nothing gets round it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from sweeper.errors import RegistryError, UserError
from sweeper.registry import Registry, Stage, gate
from sweeper.registry.changes import changes
from sweeper.registry.gate import split_of

GOOD, POOR = [1.0] * 30 + [0.0] * 10, [1.0] * 10 + [0.0] * 30
PERFECT = [1.0] * 40
SLIGHTLY = [1.0] * 31 + [0.0] * 9
"""One example more than GOOD: within chance."""


def stages(judged):
    return [found.stage.value for found in judged.registry.all("itn")]


@pytest.fixture
def itn(judged):
    judged.study()
    judged.score(None, POOR)
    return judged


def test_a_better_version_passes_and_the_former_is_archived(itn):
    itn.version(0, POOR, stage=Stage.PRODUCTION)
    itn.version(1, GOOD)
    judgement = itn.registry.judge("itn", 2)
    assert judgement.passed and judgement.against == "itn v1" and judgement.examples == 40
    assert judgement.gain == pytest.approx(0.5) and 0.3 < judgement.low < 0.5 < judgement.high < 0.7
    itn.registry.move("itn", 2, Stage.PRODUCTION, actor="ann", reason="a good week")
    assert stages(itn) == ["archived", "production"]
    action = itn.registry.history("itn")[0]
    assert (action.kind, action.actor, action.version, action.forced) == ("promote", "ann", 2, False)
    assert action.message == "itn v2 is now in production: a good week"
    assert action.data["replaced"] == 1 and action.data["gate"]["gain"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("values", "why"), [(POOR[::-1], "gain -0.5"), (SLIGHTLY, r"gain \+0.025"), (GOOD, r"gain \+0,")]
)
def test_a_worse_an_uncertain_and_the_same_version_are_refused(itn, values, why):
    itn.version(0, GOOD, stage=Stage.PRODUCTION)
    itn.version(1, values)
    before = itn.registry.history("itn")
    with pytest.raises(RegistryError, match=f"itn v2 stays staging: .* on 40 test examples: {why}.*must lie above"):
        itn.registry.move("itn", 2, Stage.PRODUCTION)
    assert stages(itn) == ["production", "staging"] and itn.registry.history("itn") == before


def test_without_one_in_production_the_base_model_stands_in(itn):
    itn.version(0, GOOD)
    itn.version(1, POOR)
    judgement = itn.registry.judge("itn", 1)
    assert judgement.passed and (judgement.against, judgement.opponent) == ("the base model of itn v1", None)
    assert not itn.registry.judge("itn", 2).passed


@pytest.mark.parametrize("later", [Stage.ARCHIVED, Stage.CANDIDATE])
def test_archiving_the_version_in_production_opens_no_way_round_it(itn, later):
    """Worse than the one in production, yet better than the base model."""
    itn.version(0, PERFECT, stage=Stage.PRODUCTION)
    itn.version(1, GOOD)
    itn.registry.move("itn", 1, Stage.ARCHIVED)
    if later is not Stage.ARCHIVED:
        itn.registry.move("itn", 1, later)
    with pytest.raises(RegistryError, match=rf"itn v2 against itn v1 \(the last in production, now {later}\), exact"):
        itn.registry.move("itn", 2, Stage.PRODUCTION)
    judgement = itn.registry.judge("itn", 2)
    assert judgement.opponent == 1 and judgement.gain == pytest.approx(-0.25)
    assert itn.registry.production("itn") is None
    itn.registry.move("itn", 2, Stage.PRODUCTION, force=True)
    assert itn.registry.history("itn")[0].forced


def test_where_production_is_empty_the_last_other_one_that_still_exists_counts(itn):
    itn.version(0, POOR, stage=Stage.PRODUCTION)
    itn.version(1, PERFECT, stage=Stage.PRODUCTION)
    itn.version(2, GOOD)
    itn.registry.move("itn", 2, Stage.ARCHIVED)
    assert itn.registry.judge("itn", 3).opponent == 2 and not itn.registry.judge("itn", 3).passed
    assert itn.registry.judge("itn", 2).opponent == 1, "itself is no opponent"
    itn.registry.delete("itn", 2)
    assert itn.registry.judge("itn", 3).opponent == 1 and itn.registry.judge("itn", 3).passed
    itn.registry.move("itn", 1, Stage.CANDIDATE)
    itn.registry.move("itn", 1, Stage.ARCHIVED)
    itn.registry.delete("itn", 1)
    assert itn.registry.judge("itn", 3).against == "the base model of itn v3"


def test_what_was_in_production_before_anything_was_recorded_counts_too(itn):
    """A home of an earlier version has stages, but no record of who moved what."""
    itn.version(0, PERFECT, stage=Stage.PRODUCTION)
    itn.version(1, GOOD)
    with closing(sqlite3.connect(itn.home.database)) as connection, connection:
        connection.execute("DELETE FROM sweeper_actions")
    itn.registry.move("itn", 1, Stage.ARCHIVED)
    assert itn.registry.judge("itn", 2).opponent == 1
    assert itn.registry.roll_back("itn").version == 1


@pytest.mark.parametrize(("margin", "passes"), [(0.0, True), (0.2, True), (0.45, False)])
def test_the_whole_interval_must_lie_above_the_margin_of_the_candidates_study(judged, margin, passes):
    judged.study(margin=margin)
    judged.version(0, POOR, stage=Stage.PRODUCTION)
    judged.version(1, GOOD)
    judgement = judged.registry.judge("itn", 2)
    assert judgement.passed is passes and judgement.margin == margin and f"margin {margin:g}" in str(judgement)


def test_an_older_study_without_a_margin_has_none(judged):
    judged.study()
    judged.study("old", evaluation={"metric": "eval_loss"})
    judged.score(None, POOR, study="old")
    judged.version(0, GOOD, study="old")
    judgement = judged.registry.judge("itn", 1)
    assert judgement.passed and (judgement.metric, judgement.margin) == ("exact_match", 0.0)


@pytest.mark.parametrize("metric", ["eval_loss", "kl"])
def test_of_losses_less_is_better(judged, metric):
    judged.study(metric=metric)
    low, high = [float(n % 3) for n in range(40)], [float(n % 3) + 1 for n in range(40)]
    one = [[value, 1.0] for value in low], [[value, 1.0] for value in high]
    for number, values in enumerate(one):
        judged.version(number, None)
        scores = [value for value, _ in values]
        judged.score(number, scores, metric="eval_loss", tokens=1)
        if metric == "kl":
            _rename(judged, number)
    better = gate.judge(judged.database, judged.registry.get("itn", 1), judged.registry.get("itn", 2))
    worse = gate.judge(judged.database, judged.registry.get("itn", 2), judged.registry.get("itn", 1))
    assert better.passed and better.gain == pytest.approx(1.0) and better.low == pytest.approx(1.0)
    assert not worse.passed and worse.gain == pytest.approx(-1.0)
    assert "smaller is better" in str(worse)


def _rename(judged, number):
    """Store a loss under the name of the divergence, which is summed up the same way."""
    (found,) = (e for e in judged.database.evaluations.all("itn") if e.number == number)
    examples = [
        replace(e, scores={"kl": e.scores["eval_loss"]}, statistics={"kl": e.statistics["eval_loss"]})
        for e in judged.database.evaluations.examples("itn", number, "test")
    ]
    scores = tuple(replace(score, metric="kl") for score in found.scores)
    judged.database.evaluations.add("itn", replace(found, scores=scores), examples)


def test_losses_per_token_of_other_tokens_are_not_compared(judged):
    judged.study(metric="eval_loss")
    judged.version(0, [9.0] * 20, metric="eval_loss", tokens=4, stage=Stage.PRODUCTION)
    judged.version(1, [3.0] * 20, metric="eval_loss", tokens=3)
    judgement = judged.registry.judge("itn", 2)
    assert judgement.unscored and "different tokens" in judgement.obstacle


def test_few_examples_decide_nothing(judged):
    judged.study()
    judged.version(0, [0.0] * 5, stage=Stage.PRODUCTION)
    judged.version(1, [1.0] * 5)
    with pytest.raises(RegistryError, match="fewer than 6 examples are too few to decide"):
        judged.registry.move("itn", 2, Stage.PRODUCTION)


def test_a_production_version_of_another_study_must_be_scored_on_the_same_examples(itn):
    itn.study("other")
    itn.version(0, POOR, stage=Stage.PRODUCTION)
    itn.version(5, GOOD, study="other", prompts="another question")
    judgement = itn.registry.judge("itn", 2)
    assert judgement.unscored and "different examples" in judgement.obstacle
    with pytest.raises(RegistryError, match="sweeper adapters compare itn 2"):
        itn.registry.move("itn", 2, Stage.PRODUCTION)
    itn.score(0, POOR, split=split_of("other"), prompts="another question")
    assert itn.registry.move("itn", 2, Stage.PRODUCTION).stage is Stage.PRODUCTION


def test_studies_that_ask_the_same_of_the_same_examples_share_their_scores(itn):
    itn.study("same")
    itn.study("longer", evaluation={"metrics": ["exact_match"], "max_new_tokens": 7})
    itn.version(0, POOR, stage=Stage.PRODUCTION)
    itn.version(5, GOOD, study="same")
    itn.version(6, GOOD, study="longer")
    assert itn.registry.judge("itn", 2).passed
    assert itn.registry.judge("itn", 3).unscored, "answers may be longer there"


def test_a_candidate_without_scores_of_its_own_is_refused(itn):
    itn.version(0)
    judgement = itn.registry.judge("itn", 1)
    assert judgement.unscored and "itn v1 was not scored on the test split" in judgement.obstacle


def test_a_name_too_long_for_the_column_is_cut_and_stays_its_own():
    one, other = split_of("x" * 99 + "a"), split_of("x" * 99 + "b")
    assert len(one) <= 100 and len(other) <= 100 and one != other
    assert split_of("itn") == "test of itn"


def test_force_overrules_the_gate_and_is_marked(itn):
    itn.version(0, GOOD, stage=Stage.PRODUCTION)
    itn.version(1, POOR)
    itn.registry.move("itn", 2, Stage.PRODUCTION, actor="bob", force=True, reason="the old one leaks")
    action = itn.registry.history("itn")[0]
    assert (action.actor, action.forced) == ("bob", True)
    assert action.message == "itn v2 is now in production against the gate: the old one leaks"


def test_force_where_the_gate_agrees_overrules_nothing(itn):
    itn.version(0, GOOD)
    itn.registry.move("itn", 1, Stage.PRODUCTION, force=True)
    assert itn.registry.history("itn")[0].forced is False


def test_an_archived_version_comes_back_by_the_gate_or_by_rollback_only(itn):
    itn.version(0, GOOD, stage=Stage.PRODUCTION)
    itn.version(1, PERFECT)
    itn.registry.move("itn", 2, Stage.PRODUCTION)
    with pytest.raises(RegistryError, match="itn v1 stays archived"):
        itn.registry.move("itn", 1, Stage.PRODUCTION)
    assert itn.registry.roll_back("itn", actor="ann", reason="it swears").stage is Stage.PRODUCTION
    assert stages(itn) == ["production", "archived"]
    action = itn.registry.history("itn")[0]
    assert (action.kind, action.version, action.actor, action.forced) == ("rollback", 1, "ann", False)
    assert action.message == "itn v1 is back in production instead of itn v2: it swears"


def test_rolling_back_twice_goes_back_twice_and_then_no_further(itn):
    for number in range(3):
        itn.version(number, GOOD, stage=Stage.PRODUCTION)
    assert [itn.registry.roll_back("itn").version for _ in range(2)] == [2, 1]
    with pytest.raises(RegistryError, match="no version of 'itn' was in production before itn v1"):
        itn.registry.roll_back("itn")
    assert itn.registry.roll_back("itn", 3).version == 3
    assert stages(itn) == ["archived", "archived", "production"]


def test_a_forced_version_that_is_rolled_back_to_stays_marked(itn):
    itn.version(0, GOOD, stage=Stage.PRODUCTION)
    itn.version(1, POOR, stage=Stage.PRODUCTION)
    itn.registry.roll_back("itn")
    assert itn.registry.history("itn")[0].forced is False
    itn.registry.roll_back("itn", 2, reason="the new one leaks")
    action = itn.registry.history("itn")[0]
    assert (action.kind, action.version, action.forced) == ("rollback", 2, True)
    assert action.message == (
        "itn v2 is back in production instead of itn v1, though it had been forced in against the gate: "
        "the new one leaks"
    )
    for number in (1, 2, 1):
        itn.registry.roll_back("itn", number)
    assert [action.forced for action in itn.registry.history("itn")[:3]] == [False, True, False]


def test_a_version_that_passed_the_gate_later_is_not_marked_any_more(itn):
    itn.version(0, GOOD, stage=Stage.PRODUCTION)
    itn.version(1, PERFECT)
    itn.score(1, POOR)
    itn.registry.move("itn", 2, Stage.PRODUCTION, force=True)
    itn.registry.roll_back("itn")
    itn.score(1, PERFECT)
    itn.registry.move("itn", 2, Stage.PRODUCTION)
    itn.registry.roll_back("itn", 1)
    itn.registry.roll_back("itn", 2)
    assert itn.registry.history("itn")[0].forced is False


def test_a_rollback_brings_back_what_was_archived_by_hand(itn):
    itn.version(0, GOOD, stage=Stage.PRODUCTION)
    itn.registry.move("itn", 1, Stage.ARCHIVED)
    assert itn.registry.roll_back("itn").stage is Stage.PRODUCTION


def test_a_rollback_is_no_way_round_the_gate(itn):
    itn.version(0, GOOD, stage=Stage.PRODUCTION)
    itn.version(1, POOR)
    itn.registry.move("itn", 2, Stage.ARCHIVED)
    with pytest.raises(RegistryError, match="itn v2 was never in production"):
        itn.registry.roll_back("itn", 2)
    with pytest.raises(RegistryError, match="itn v1 is production"):
        itn.registry.roll_back("itn", 1)
    (itn.registry.get("itn", 1).folder / "adapter_config.json").write_text("{}")
    itn.registry.move("itn", 1, Stage.ARCHIVED)
    with pytest.raises(RegistryError, match="is not as it was registered"):
        itn.registry.roll_back("itn")
    assert stages(itn) == ["archived", "archived"]


def test_what_was_judged_is_what_is_replaced(itn, twice, monkeypatch):
    """Another process promotes while the gate is thinking: the judgement is of a version that is gone."""
    itn.version(0, POOR, stage=Stage.PRODUCTION)
    itn.version(1, GOOD)
    itn.version(2, GOOD)
    judge = gate.judge

    def interrupted(*asked, **more):
        found = judge(*asked, **more)
        with twice() as other:
            monkeypatch.setattr("sweeper.registry.versions.judge", judge)
            Registry(itn.home, other).move("itn", 3, Stage.PRODUCTION, actor="bob")
        return found

    monkeypatch.setattr("sweeper.registry.versions.judge", interrupted)
    with pytest.raises(RegistryError, match="just moved by someone else"):
        itn.registry.move("itn", 2, Stage.PRODUCTION, actor="ann")
    assert stages(itn) == ["archived", "staging", "production"]
    assert [action.actor for action in itn.registry.history("itn") if action.kind == "promote"] == ["bob", "ann"]


def test_two_first_promotions_leave_one(itn, twice, monkeypatch):
    """With none in production there is no row that both change; still only one of them wins."""
    itn.version(0, GOOD)
    itn.version(1, GOOD)
    judge = gate.judge

    def interrupted(*asked, **more):
        monkeypatch.setattr("sweeper.registry.versions.judge", judge)
        with twice() as other:
            Registry(itn.home, other).move("itn", 2, Stage.PRODUCTION)
        return judge(*asked, **more)

    monkeypatch.setattr("sweeper.registry.versions.judge", interrupted)
    with pytest.raises(RegistryError, match="just moved by someone else"):
        itn.registry.move("itn", 1, Stage.PRODUCTION)
    assert stages(itn) == ["staging", "production"]


def test_a_change_and_its_record_are_one_transaction(itn, monkeypatch):
    itn.version(0, GOOD)
    before = itn.registry.history("itn")

    def broken(session, action):
        raise OSError("the power went")

    monkeypatch.setattr("sweeper.store.adapters._record", broken)
    for act in (
        lambda: itn.registry.move("itn", 1, Stage.PRODUCTION),
        lambda: itn.registry.set_alias("itn", 1, "champion"),
        lambda: itn.registry.set_tags("itn", 1, ["x"]),
        lambda: itn.registry.annotate("itn", 1, "x"),
    ):
        with pytest.raises(OSError, match="the power went"):
            act()
    found = itn.registry.get("itn", 1)
    assert (found.stage, found.aliases, found.tags, found.note) == (Stage.STAGING, (), (), "")
    assert itn.registry.history("itn") == before


def test_an_alias_moves_and_means_a_version_everywhere(itn):
    itn.version(0, GOOD)
    itn.version(1, GOOD)
    itn.registry.set_alias("itn", 1, "champion", actor="ann")
    assert itn.registry.set_alias("itn", 2, "champion", actor="ann").aliases == ("champion",)
    assert itn.registry.get("itn", "champion").version == 2 and itn.registry.get("itn", 1).aliases == ()
    with pytest.raises(RegistryError, match="itn v1 is not called 'champion'; it has no alias"):
        itn.registry.remove_alias("itn", 1, "champion")
    with pytest.raises(RegistryError, match=r"has no version best; .* its aliases: champion"):
        itn.registry.get("itn", "best")
    itn.registry.remove_alias("itn", 2, "champion")
    kinds = [action.kind for action in itn.registry.history("itn")]
    assert kinds[:3] == ["unalias", "alias", "alias"]


@pytest.mark.parametrize("alias", ["7", "v7", "V12", "latest", "Latest", "production", "candidate", "", "../x", "a b"])
def test_what_could_be_taken_for_a_version_is_no_alias(itn, alias):
    itn.version(0, GOOD)
    with pytest.raises(RegistryError, match="alias"):
        itn.registry.set_alias("itn", 1, alias)
    assert itn.registry.get("itn", 1).aliases == ()


def test_a_deleted_version_loses_its_aliases(itn):
    itn.version(0, GOOD)
    itn.registry.set_alias("itn", 1, "champion")
    itn.registry.move("itn", 1, Stage.ARCHIVED)
    itn.registry.delete("itn", 1, actor="ann")
    assert itn.database.adapters.aliases("itn") == {}
    assert itn.registry.history("itn")[0].kind == "delete"


def test_tags_and_notes_are_kept_with_who_wrote_them(itn):
    itn.version(0, GOOD)
    found = itn.registry.set_tags("itn", 1, ["german", " german ", "v2 data"], actor="ann")
    assert found.tags == ("german", "v2 data")
    assert itn.registry.annotate("itn", 1, "  good with dates \n", actor="bob").note == "good with dates"
    itn.registry.annotate("itn", 1, "good with dates", actor="bob")
    assert [(a.kind, a.actor) for a in itn.registry.history("itn")[:3]] == [
        ("note", "bob"),
        ("tag", "ann"),
        ("move", "ann"),
    ]
    for wrong in ([""], ["x" * 51], ["a\nb"], [str(n) for n in range(21)]):
        with pytest.raises(UserError, match="tag"):
            itn.registry.set_tags("itn", 1, wrong)
    with pytest.raises(RegistryError, match="4000"):
        itn.registry.annotate("itn", 1, "x" * 4001)


def test_what_changed_between_two_versions(itn):
    itn.study("later", metric="token_f1")
    itn.version(0, GOOD, learning_rate=1e-3)
    itn.version(1, POOR, learning_rate=2e-3)
    itn.version(0, POOR, study="later", name="itn")
    found = changes(itn.database, itn.registry.get("itn", 1), itn.registry.get("itn", 2))
    told = {(of.part, of.name): (of.old, of.new) for of in found.changes}
    assert told[("hyperparameters", "learning_rate")] == (1e-3, 2e-3)
    assert told[("seeds", "trial")] == (0, 1) and told[("origin", "trial")] == (0, 1)
    assert not {part for part, _ in told} & {"data", "base model", "packages"}
    (score,) = found.scores
    assert (score.old, score.new, score.verdict) == (0.75, 0.25, "worse") and score.gap == pytest.approx(-0.5)
    assert found.study_file == ()
    other = changes(itn.database, itn.registry.get("itn", 1), itn.registry.get("itn", 3))
    assert "-  metrics: [exact_match]" in other.study_file and "+  metrics: [token_f1]" in other.study_file
