"""Study files: every fault named at its line, all at once; hostile YAML refused."""

from __future__ import annotations

import pytest

from sweeper.config.loader import load_study
from sweeper.config.space import Choice, Fixed, FloatRange, IntRange
from sweeper.errors import Fault, StudyFileError

GOOD = """\
name: itn
model: smollm2-135m
data:
  train: train.jsonl
"""


@pytest.fixture
def faults(tmp_path):
    """Write a study file and return what is wrong with it."""

    def find(text: str | bytes) -> tuple[Fault, ...]:
        path = tmp_path / "study.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(StudyFileError) as caught:
            load_study(path)
        for fault in caught.value.faults:
            assert fault.render(str(path)) in str(caught.value)
        return caught.value.faults

    return find


@pytest.fixture
def study(tmp_path):
    def load(text: str):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return load_study(path)

    return load


def test_the_smallest_study_has_defaults(study, tmp_path):
    found = study(GOOD)
    assert found.config.model.name == "smollm2-135m"
    assert found.config.data.train == ("train.jsonl",)
    assert found.config.adapter.kind == "qlora"
    assert found.config.search.preset == "recommended"
    assert found.folder == tmp_path
    assert found.text == GOOD


def test_every_form_of_a_range(study):
    space = study(
        GOOD
        + """
search:
  sampler: tpe
  pruner: null
  timeout: 2h
  space:
    learning_rate: {low: 1e-5, high: 1e-3, log: true}
    warmup_steps: {low: 0, high: 20}
    lora_rank: [8, 16]
    epochs: 2
    lora_alpha: [r, 2r]
    target_modules: [[q_proj, v_proj], all-linear]
    lora_dropout: {choice: [0.0, 0.1], when: {lora_rank: 16}}
    adam_beta2: {low: 0.9, high: 0.999}
"""
    ).config.search
    assert space.sampler.kind == "tpe"
    assert space.pruner.kind == "none"
    assert space.timeout == 7200
    ranges = space.space
    assert ranges["learning_rate"] == FloatRange(low=1e-5, high=1e-3, log=True)
    assert ranges["warmup_steps"] == IntRange(low=0, high=20)
    assert ranges["lora_rank"] == Choice(choice=(8, 16))
    assert ranges["epochs"] == Fixed(value=2)
    assert ranges["target_modules"].choice == (("q_proj", "v_proj"), "all-linear")
    assert ranges["lora_dropout"].when == {"lora_rank": (16,)}


# What is appended to a good file (from line 5 on), the dotted field, its line, words of the message, the hint.
FAULTS = {
    "unknown key": ("serch:\n  n_trials: 3\n", "serch", 5, "unknown key", "did you mean search?"),
    "unknown key below": ("search:\n  n_trial: 3\n", "search.n_trial", 6, "unknown key", "did you mean n_trials?"),
    "unknown kind": ("technique: {kind: stf}\n", "technique", 5, "must be one of", None),
    "unknown adapter": ("adapter: {kind: qlor}\n", "adapter", 5, "must be one of lora, qlora", "did you mean qlora?"),
    "unknown sampler": ("search:\n  sampler: tpee\n", "search.sampler", 6, "must be one of auto", "did you mean tpe?"),
    "unknown metric": (
        "evaluation:\n  metric: exact_macth\n",
        "evaluation.metric",
        6,
        "must be one of",
        "did you mean exact_match?",
    ),
    "wrong type": ("search:\n  n_trials: many\n", "search.n_trials", 6, "found 'many'", None),
    "out of bounds": ("search:\n  n_trials: 0\n", "search.n_trials", 6, "greater than or equal to 1; found 0", None),
    "nan": ("evaluation:\n  points: .nan\n", "evaluation.points", 6, "found nan", None),
    "infinity": ("search:\n  max_epochs_total: 1e400\n", "search.max_epochs_total", 6, "finite number", None),
    "duration": ("search:\n  timeout: soon\n", "search.timeout", 6, "30m, 6h or 2d; found 'soon'", None),
    "device": ("executor: {device: gpu}\n", "executor.device", 5, "found 'gpu'", None),
    "mapping due": ("search: 3\n", "search", 5, "found 3", None),
    "negative seed": ("seed: -1\n", "seed", 5, "found -1", None),
}
SPACE = {
    "low above high": ("learning_rate: {low: 1e-3, high: 1e-4}", "low must not be above high"),
    "log from 0": ("learning_rate: {low: 0, high: 1e-4, log: true}", "a log range must begin above 0"),
    "empty choice": ("lora_rank: []", "at least 1 item"),
    "same choice twice": ("lora_rank: [8, 8]", "must differ"),
    "log with a step": ("batch_size: {low: 8, high: 64, step: 8, log: true}", "a log range has no step"),
    "float for an int": ("lora_rank: {low: 0.5, high: 8.5}", "must be an integer range"),
    "value of the wrong type": ("learning_rate: fast", "must be a number; found 'fast'"),
    "value out of bounds": ("lora_dropout: [0.0, 1.5]", "at most 0.95; found 1.5"),
    "rank of 0": ("lora_rank: [0, 8]", "must be at least 1 and at most 65536; found 0"),
    "alpha": ("lora_alpha: [2x]", "a multiple of the rank such as r or 2r; found '2x'"),
    "scheduler": ("lr_scheduler: [cosin]", "must be one of linear, cosine"),
    "range of words": ("lr_scheduler: {low: 1, high: 2}", "must be a value or a choice"),
    "renamed": ("num_train_epochs: 3", "use epochs instead"),
    "owned": ("output_dir: /tmp", "cannot be searched"),
    "when on itself": ("lora_rank: {choice: [8, 16], when: {lora_rank: 8}}", "cannot depend on itself"),
    "when on nothing": ("lora_rank: {choice: [8, 16], when: {lora_rnk: 8}}", "lora_rnk, which is not in the space"),
    "nan in a range": ("learning_rate: {low: .nan, high: 1e-3}", "finite number"),
    "infinity in a range": ("learning_rate: {low: 1e-5, high: 1e400}", "finite number"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_field_line_and_remedy(faults, name):
    text, field, line, message, hint = FAULTS[name]
    (fault,) = faults(GOOD + text)
    assert fault.field == field
    assert fault.line == line
    assert message in fault.message
    assert fault.hint == hint if hint else True


@pytest.mark.parametrize("name", SPACE)
def test_a_faulty_range_is_refused_at_its_line(faults, name):
    text, message = SPACE[name]
    found = faults(f"{GOOD}search:\n  space:\n    {text}\n")
    assert [fault.line for fault in found] == [7] * len(found)
    assert any(message in fault.message for fault in found), found
    assert all(fault.field.startswith("search.space.") for fault in found)


def test_an_unknown_parameter_gets_the_nearest_name(faults):
    (fault,) = faults(GOOD + "search:\n  space:\n    learnin_rate: 1e-4\n")
    assert "unknown parameter" in fault.message
    assert fault.hint == "did you mean learning_rate?"
    (fault,) = faults(GOOD + "search:\n  space:\n    adam_beta_2: 0.9\n")
    assert fault.hint == "did you mean adam_beta2?"


def test_two_names_of_one_thing(faults):
    (fault,) = faults(GOOD + "search:\n  space:\n    warmup_steps: 5\n    warmup_ratio: 0.1\n")
    assert "set the same thing" in fault.message
    assert fault.line == 8


def test_all_faults_come_at_once_in_the_order_of_the_file(faults):
    found = faults(
        "name: ../escape\nmodle: x\ndata: {train: a.jsonl, formt: text}\nsearch:\n  n_trials: 0\n"
        "  space:\n    lora_rank: [8, x]\n"
    )
    assert {fault.field for fault in found} == {
        "name",
        "modle",
        "model",
        "data.formt",
        "search.n_trials",
        "search.space.lora_rank",
    }
    assert [fault.line for fault in found] == sorted(fault.line for fault in found)


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/b",
        "C:\\\\x",
        "a\\nb",
        "x" * 300,
        "\u202eabc",
        "\U0001f600",
        "'; drop table studies; --",
        "<script>",
        "..",
        ".hidden",
        "%252e%252e",
        "..\\\\up",
        "end.",
        "",
    ],
)
def test_names_that_could_escape_or_inject_are_refused(faults, name):
    (fault,) = faults(GOOD.replace("name: itn", f'name: "{name}"' if "\\" in name or not name else f"name: {name!r}"))
    assert fault.field == "name"
    assert fault.line == 1
    assert "letters" in fault.message


def test_a_name_that_is_a_number_is_refused_as_text_is_due(faults):
    (fault,) = faults(GOOD.replace("itn", "12"))
    assert "valid string; found 12" in fault.message
