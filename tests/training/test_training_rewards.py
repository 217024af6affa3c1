"""What answers earn: every kind of reward, and what is said where one cannot be used."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest
from pydantic import TypeAdapter, ValidationError

from sweeper.config.functions import function_fault
from sweeper.config.rewards import Reward, RewardSources
from sweeper.errors import RewardError

TENTHS = {"type": "number", "multipleOf": 0.1}

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def built(reward, folder=None):
    from sweeper.training.rewards import build_rewards

    parsed = TypeAdapter(Reward).validate_python(reward)
    (function,) = build_rewards([parsed], RewardSources(study_folder=folder) if folder else None, "cpu")
    return function


@pytest.mark.parametrize(
    ("reward", "answer", "earns"),
    [
        ({"kind": "exact_match"}, " 12 \n", 1.0),
        ({"kind": "exact_match"}, "13", 0.0),
        ({"kind": "length", "target": 4}, "1234", 1.0),
        ({"kind": "length", "target": 4}, " 12 ", 0.5),
        ({"kind": "length", "target": 4}, "123456", 0.5),
        ({"kind": "length", "target": 4}, "", 0.0),
        ({"kind": "length", "target": 4}, "123456789", 0.0),
        ({"kind": "regex", "pattern": r"\d+"}, " 123 ", 1.0),
        ({"kind": "regex", "pattern": r"\d+"}, "123 and more", 0.0),
        ({"kind": "json_schema", "schema": SCHEMA}, '{"n": 3}', 1.0),
        ({"kind": "json_schema", "schema": SCHEMA}, '{"n": "3"}', 0.0),
        ({"kind": "json_schema", "schema": SCHEMA}, "{n: 3}", 0.0),
        ({"kind": "json_schema", "schema": {"type": "number"}}, "NaN", 0.0),
        ({"kind": "json_schema", "schema": {}}, "[" * 100_000, 0.0),
        ({"kind": "json_schema", "schema": {}}, "1e400", 0.0),
        ({"kind": "json_schema", "schema": TENTHS}, "-1e400", 0.0),
        ({"kind": "json_schema", "schema": TENTHS}, "1" + "0" * 400, 0.0),
        ({"kind": "json_schema", "schema": TENTHS}, "0.5", 1.0),
        ({"kind": "regex", "pattern": r"\p{L}{2}\{i}[{e}]"}, "äß{i}{e", 0.0),
        ({"kind": "regex", "pattern": r"\p{L}{2}\{i}[{e}]"}, "äß{i}e", 1.0),
    ],
)
def test_what_an_answer_earns(reward, answer, earns):
    function = built(reward)
    assert function(["p"], [answer], reference=["12"]) == [earns]
    chat = [[{"role": "assistant", "content": answer}]]
    assert function(["p"], chat, reference=["12"], completion_ids=[[1]], trainer_state=None) == [earns]


def test_a_pattern_that_would_look_for_ever_counts_as_no_match(monkeypatch):
    from sweeper.training.rewards import texts

    monkeypatch.setattr(texts, "MATCH_TIMEOUT_S", 0.05)
    assert built({"kind": "regex", "pattern": r"(a|aa)+b"})(["p"], ["a" * 60 + "c"]) == [0.0]


SLOW, ANSWER = "^(a|aa)+b$", "a" * 60 + "c"
DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"not": {"pattern": SLOW}}, ANSWER),
        ({"not": {"pattern": SLOW}, **DRAFT_4}, ANSWER),
        ({"patternProperties": {SLOW: False}}, {ANSWER: 1}),
        ({"additionalProperties": True, "patternProperties": {SLOW: True}}, {ANSWER: 1}),
        ({"additionalProperties": {}, "patternProperties": {SLOW: {}}, **DRAFT_4}, {ANSWER: 1}),
    ],
)
def test_a_pattern_of_a_schema_that_would_look_for_ever_counts_as_not_accepted(monkeypatch, schema, answer):
    from sweeper.training.rewards import texts

    monkeypatch.setattr(texts, "MATCH_TIMEOUT_S", 0.05)
    function = built({"kind": "json_schema", "schema": schema})
    assert function(["p", "p"], [json.dumps(answer), "1"]) == [0.0, 1.0 if "not" not in schema else 0.0]


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#", None]
)
def test_patterns_of_a_schema_mean_what_they_do_in_jsonschema(draft):
    schema = {
        "type": "object",
        "properties": {"name": {"pattern": "^\\p{L}+$"}},
        "patternProperties": {"_n$": {"type": "integer"}},
        "additionalProperties": False,
    }
    function = built({"kind": "json_schema", "schema": schema | ({"$schema": draft} if draft else {})})
    answers = ['{"name": "äb", "a_n": 1}', '{"name": "a1"}', '{"a_n": "1"}', '{"other": 1}', '{"name": 5}']
    assert function(["p"] * 5, answers) == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_weights_add_up():
    from sweeper.training.rewards import build_rewards, earned

    rewards = TypeAdapter(tuple[Reward, ...]).validate_python(
        [{"kind": "exact_match", "weight": 2}, {"kind": "regex", "pattern": r"\d", "weight": -0.5}]
    )
    functions = build_rewards(rewards, None, "cpu")
    assert [function.weight for function in functions] == [2.0, -0.5]
    assert earned(functions, ["p"] * 3, ["1", "x", "2"], {"reference": ["1", "1", "1"]}) == [1.5, 0.0, -0.5]


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ({"kind": "regex", "pattern": "("}, "not a regular expression"),
        ({"kind": "regex", "pattern": "a{99999999999}"}, "not a regular expression: repeat count too big"),
        ({"kind": "regex", "pattern": "(" * 5000 + ")" * 5000}, "nested too deeply"),
        ({"kind": "regex", "pattern": "a{i}"}, r"{ at position 1 is an approximate match"),
        ({"kind": "regex", "pattern": "(?:abc){e<=1}"}, "for a brace"),
        ({"kind": "regex", "pattern": "[{i}]{1<=e<=3}"}, "{ at position 5"),
        ({"kind": "regex", "pattern": "a{2i+1d<3}"}, "approximate match"),
        ({"kind": "regex", "pattern": r"\L<words>"}, "not a regular expression"),
        ({"kind": "json_schema", "schema": {"type": "integr"}}, "not a JSON schema"),
        ({"kind": "json_schema", "schema": {"$schema": [1]}}, r"\$schema \[1\] is not a known version"),
        ({"kind": "json_schema", "schema": {"$schema": 5}}, r"\$schema 5 is not a known version"),
        ({"kind": "json_schema", "schema": {"$schema": "https://x.y"}}, "is not a known version"),
        ({"kind": "json_schema", "schema": {"$ref": "#/nope"}}, "'#/nope' refers to something outside the schema"),
        ({"kind": "json_schema", "schema": {"$ref": 5}}, "not a JSON schema"),
        (
            {"kind": "json_schema", "schema": {"$ref": "#/title", "title": "x"}},
            "something that is not a schema",
        ),
        ({"kind": "json_schema", "schema": {"items": {"$ref": "http://x/y"}}}, "nothing is fetched"),
        ({"kind": "json_schema", "schema": {"$ref": "#/a/b", "a": {"b": {"type": "integr"}}}}, "integr"),
        (
            {"kind": "json_schema", "schema": {"$ref": "#/a/b", "a": {"b": {"$ref": "#/c"}}}},
            "'#/c' refers to some",
        ),
        (
            {"kind": "json_schema", "schema": {"unevaluatedProperties": False, "allOf": [{"patternProperties": {}}]}},
            "use additionalProperties",
        ),
        ({"kind": "json_schema", "schema": {"pattern": "("}}, r"pattern '\(' is not a regular expression"),
        ({"kind": "json_schema", "schema": {"properties": {"a": {"pattern": "a{e}"}}}}, "approximate match"),
        ({"kind": "json_schema", "schema": {"patternProperties": {"a{99999999999}": {}}}}, "repeat count too big"),
        ({"kind": "function", "function": "no colon"}, "match pattern"),
        ({"kind": "length", "target": 0}, "greater than or equal to 1"),
    ],
)
def test_a_reward_that_cannot_be_is_a_fault_of_the_file(reward, said):
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(Reward).validate_python(reward)


def test_a_schema_is_never_fetched_from_elsewhere():
    with pytest.raises(ValidationError, match="refers to something outside the schema, and nothing is fetched"):
        built({"kind": "json_schema", "schema": {"$ref": "https://example.com/schema.json"}})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}},
        {"$ref": "#n", "$defs": {"n": {"$anchor": "n", "type": "integer"}}},
        {"$ref": "other", "$id": "https://a.b/c", "$defs": {"n": {"$id": "other", "type": "integer"}}},
        {"type": "integer", "not": {"items": {"$ref": "#"}, "type": "array"}},
        {"$ref": "#/a/b", "a": {"b": {"type": "integer"}}},
        {"type": "integer", "properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}},
    ],
)
def test_what_a_schema_refers_to_within_itself_is_found(schema):
    assert built({"kind": "json_schema", "schema": schema})(["p", "p"], ["1", '"x"']) == [1.0, 0.0]


def module(folder, text, name="earning"):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def test_a_function_of_the_users_own(tmp_path):
    folder = module(
        tmp_path / "one",
        """
        import beside

        def near(prompts, completions, reference, **columns):
            return [beside.ONE if a == b else len(p) / 10 for p, a, b in zip(prompts, completions, reference)]
        """,
    )
    (folder / "beside.py").write_text("ONE = 1\n")
    function = built({"kind": "function", "function": "earning:near"}, folder)
    assert function(["abc", "abcd"], ["x", "y"], reference=["x", "x"]) == [1.0, 0.4]
    other = module(tmp_path / "two", "def near(completions, **_):\n    return [7] * len(completions)\n")
    assert built({"kind": "function", "function": "earning:near"}, other)(["p"], ["x"]) == [7.0]
    assert function(["abc"], ["x"], reference=["x"]) == [1.0]


def test_a_function_may_import_what_lies_beside_it_when_it_is_called(tmp_path):
    folder = module(
        tmp_path,
        """
        def late(completions, **_):
            import imported_late
            return [imported_late.TWO] * len(completions)
        """,
        name="earning_late",
    )
    (folder / "imported_late.py").write_text("TWO = 2\n")
    before = list(sys.path)
    assert built({"kind": "function", "function": "earning_late:late"}, folder)(["p"], ["x"]) == [2.0]
    assert sys.path == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1.0]", "returned 1 numbers for 2 answers"),
        ("return [1.0, float('nan')]", "must return finite numbers"),
        ("return [1.0, 'much']", "must return a number for each answer"),
        ("return None", "must return a number for each answer"),
        ("return [1 / 0]", "earning:bad failed: ZeroDivisionError"),
    ],
)
def test_a_function_that_fails_is_named(tmp_path, body, said):
    folder = module(tmp_path, f"def bad(completions, **_):\n    {body}\n")
    with pytest.raises(RewardError, match=said):
        built({"kind": "function", "function": "earning:bad"}, folder)(["p", "q"], ["x", "y"])


def test_a_module_that_cannot_be_imported_is_named(tmp_path):
    folder = module(tmp_path, "import nothing_of_this_name\ndef good(**_): ...\n")
    with pytest.raises(RewardError, match="earning:good cannot be imported: ModuleNotFoundError"):
        built({"kind": "function", "function": "earning:good"}, folder)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("earning:good", None),
        ("earning:also", None),
        ("json:dumps", None),
        ("earning:bad", "defines no bad; it has also, good"),
        ("earning:waits", "is async"),
        ("missing:good", "there is no module 'missing'"),
        ("earning.sub:good", "there is no module 'earning.sub'"),
    ],
)
def test_functions_are_found_without_importing_them(tmp_path, reference, said):
    folder = module(
        tmp_path,
        """
        raise SystemExit("imported")
        from json import dumps as also
        async def waits(): ...
        def good(): ...
        """,
    )
    fault = function_fault(reference, folder)
    assert fault is None if said is None else said in fault


@pytest.mark.parametrize(
    ("name", "other"), [("json", "Python's own"), ("trl", "the installed one"), ("sweeper", "the installed one")]
)
def test_a_module_that_would_replace_another_is_refused(tmp_path, monkeypatch, name, other):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as with python -m, started in the study's folder
    folder = module(tmp_path, "def good(**_): ...\n", name=name)
    fault = function_fault(f"{name}:good", folder)
    assert f"{name}.py would replace {other} module {name!r} everywhere; rename the file" in fault


def test_a_module_of_another_studys_folder_is_no_installed_one(tmp_path, monkeypatch):
    text = "def good(completions, **_):\n    return [1.0] * len(completions)\n"
    one, two = (module(tmp_path / name, text, name="earning_twice") for name in ("one", "two"))
    built({"kind": "function", "function": "earning_twice:good"}, one)  # it is in sys.modules now
    monkeypatch.chdir(two)
    monkeypatch.syspath_prepend("")
    assert function_fault("earning_twice:good", two) is None
    (tmp_path / "earning_twice").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))  # a folder without __init__.py is found only where nothing else is
    assert function_fault("earning_twice:good", two) is None


def test_a_function_of_an_installed_package_is_found(tmp_path, monkeypatch):
    packages = module(tmp_path / "packages", "def good(**_): ...\n", name="installed_earning")
    monkeypatch.syspath_prepend(str(packages))
    assert function_fault("installed_earning:good", tmp_path, ("prompts", "completions")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def good(**columns): ...", None),
        ("def good(prompts, completions, reference=None): ...", None),
        ("good = lambda completions, **_: completions", None),
        ("good = made()", None),
        ("@wrapped\ndef good(completion): ...", None),
        ("good = None\ntry:\n    from fast import good\nexcept ImportError:\n    pass", None),
        ("good = 1\ndef good(**_): ...", None),
        ("from elsewhere import *\ngood = 1", None),
        ("good, other = made()", None),
        ("def good(**_): ...\nif __name__ == '__main__':\n    print(good())", None),
        ("good = 0.5", "is not a function"),
        ("good: list[float] = [1.0]", "is not a function"),
        ("good: float", "defines no good"),
        ("import good", "is a module"),
        ("def good(completions): ...", "takes no prompts; it is called with prompts, completions, all by name"),
        ("def good(completion, **_): ...", "needs completion; it is called with"),
        ("def good(completions, /, **_): ...", "needs completions"),
        ("def good(*answers): ...", "takes no prompts and no completions"),
        ("def good(*, completions, tolerance, **_): ...", "needs tolerance"),
        ("def good(prompts, completions, reference): ...", "needs reference"),
        ("good = lambda completions: completions", "takes no prompts"),
    ],
)
def test_a_function_must_take_what_it_is_called_with(tmp_path, text, said):
    fault = function_fault("earning:good", module(tmp_path, text), ("prompts", "completions"))
    assert fault is None if said is None else said in fault
