"""Hostile study files, each fed to the command line: one message naming file, line and fault, exit code 2.

Where an item of the list is tested: L is ``tests/config/test_config_loader.py``, Y ``test_config_yaml_source.py``, C
``tests/check/test_check_command.py``; "here" stands below, through ``check``, ``run`` or ``load_study``.

===========================================  ================================================================
unknown key; typo in a kind; wrong type      L ``test_a_fault_names_field_line_and_remedy``; C
NaN, inf, 1e400                              L; here (every number of the file)
low above high; log from 0; empty choice     L ``test_a_faulty_range_is_refused_at_its_line``; C
a duplicate key                              Y ``test_a_duplicate_key_names_both_lines``; C; here (in a flow mapping)
a YAML tag                                   Y ``test_tags_are_refused_and_run_nothing``; C; here (by ``run``)
anchors that explode                         Y, C; here (aliases to themselves, merge keys)
10 MB; nesting 10,000 deep                   Y, C; here (a file whose size is not what it says)
NUL, BOM, UTF-16, CRLF, tabs                 Y, C; here (UTF-32, CR alone, through the command line)
names                                        L ``test_names_that_could_escape_or_inject_are_refused``; here (files too)
environment references that are not set      Y (text as it stands); here (data and model)
a folder, a FIFO, unreadable                 Y ``TestFiles``; C; here (as another user, by the command line)
a symbolic link that leaves the folder       Y (the file itself); here (where its relative paths begin)
===========================================  ================================================================
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from check_helpers import STUDY, refused

from sweeper.config.loader import load_study
from sweeper.errors import StudyFileError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def check(sweeper, folder):
    """Check a study file of these bytes; nothing may be written by it."""

    def run(content: bytes | str, command: str = "check") -> Any:
        path = folder / "study.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        before = sorted(folder.parent.rglob("*"))
        result = sweeper(command, path)
        assert sorted(folder.parent.rglob("*")) == before
        return result

    return run


NUMBERS = {
    "search.n_trials": "search: {n_trials: VALUE}",
    "search.timeout": "search: {timeout: VALUE}",
    "search.max_epochs_total": "search: {max_epochs_total: VALUE}",
    "search.space.learning_rate": "search: {space: {learning_rate: VALUE}}",
    "search.space.learning_rate.low": "search: {space: {learning_rate: {low: VALUE, high: 1.0}}}",
    "search.space.lora_rank": "search: {space: {lora_rank: [VALUE]}}",
    "search.enqueue.0.learning_rate": "search: {enqueue: [{learning_rate: VALUE}]}",
    "evaluation.points": "evaluation: {points: VALUE}",
    "data.test_fraction": "data.test_fraction",
    "seed": "seed: VALUE",
}


@pytest.mark.parametrize("value", [".nan", "-.inf", "1e400", "9" * 399, "-1e999"])
@pytest.mark.parametrize("field", NUMBERS)
def test_what_is_no_finite_number_is_refused_everywhere(check, field, value):
    if field == "data.test_fraction":
        text = STUDY.replace("  test: test.jsonl", f"  test_fraction: {value}")
    else:
        text = STUDY + NUMBERS[field].replace("VALUE", value) + "\n"
    message = refused(check(text), f"study.yaml:{6 if 'fraction' in field else 8}: {field}")
    assert len(message) < 1000


@pytest.mark.parametrize("alpha", ["9" * 400 + "r", "65537r", "0r", "-1r", "1e5r"])
def test_an_alpha_that_no_rank_could_have(check, alpha):
    text = f"{STUDY}search: {{space: {{lora_alpha: ['{alpha}']}}}}\n"
    refused(check(text), "study.yaml:8: search.space.lora_alpha", "a multiple of the rank")


def test_duplicate_keys_of_a_flow_mapping(check):
    refused(check(f"{STUDY}search: {{n_trials: 2, n_trials: 3}}\n"), "study.yaml:8: search.n_trials: is given twice")


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!map", "!x"])
def test_a_tag_runs_nothing(check, folder, command, tag):
    ran = folder.parent / "ran"
    refused(check(f"{STUDY}seed: {tag} ['touch {ran}']\n", command), "study.yaml:8: the tag ", "is not allowed")
    assert not ran.exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a, *a]\n",  # of itself
        "a: &a {b: 1}\nc: {<<: *a}\n",  # merged
        "a: &a x\n" + "".join(f"k{n}: [*a, *a, *a, *a, *a, *a, *a, *a]\n" for n in range(5000)),
    ],
)
def test_aliases_are_refused_whatever_they_would_become(check, text):
    message = refused(check(text), "study.yaml:1: anchors and aliases are not supported")
    assert len(message) < 5000


ENCODINGS = {
    "utf-32": STUDY.encode("utf-32"),
    "utf-16 without a mark": STUDY.encode("utf-16-le"),
    "latin-1": STUDY.replace("letters", "größe").encode("latin-1"),
    "half a character": STUDY.encode() + b"seed: \xed\xa0\x80\n",
    "a NUL in the middle": STUDY.encode() + b"seed: 1\0\n",
    "a binary file": bytes(range(256)) * 50,
    "escapes": STUDY.encode() + b"\x1b]0;owned\x07: 1\n",
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_what_is_no_utf8_text(check, kind):
    message = refused(check(ENCODINGS[kind]), "study.yaml", "UTF-8" if kind != "escapes" else "is not valid YAML")
    assert "\x1b" not in message


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_change_nothing(check, line_end, mark):
    result = check(mark + STUDY.replace("\n", line_end).encode())
    assert result.exit_code == 0, result.output


def test_tabs(check):
    refused(check(STUDY.replace("  train:", "\ttrain:")), "study.yaml:4: is not valid YAML")


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/b",
        "C:\\x",
        "a\nb",
        "x" * 300,
        "\u202eabc",
        "\U0001f600",
        "<script>",
        "'; drop table studies; --",
        "%252e%252e",
        "..\\up",
        "-rf",
        "a\x00b",
        " ",
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_names_are_refused_before_anything_is_written(check, command, name):
    message = refused(
        check(STUDY.replace("letters", json.dumps(name, ensure_ascii=False)), command), "study.yaml:1: name: "
    )
    assert "\u202e" not in message


@pytest.mark.parametrize(
    "name",
    [
        "'; drop table studies; --.yaml",
        "<script>.yaml",
        "\u202eabc.yaml",
        "a\nb.yaml",
        "$(touch ran).yaml",
        "\U0001f600.yaml",
        "[red]a.yaml",
        "--help.yaml",
    ],
)
def test_names_of_files_are_names(sweeper, folder, name):
    path = folder / name
    path.write_text(STUDY)
    assert sweeper("check", path).exit_code == 0
    path.write_text("serch: 1\n")
    message = refused(sweeper("check", path), "serch: unknown key")
    assert "\u202e" not in message
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "reference", ["${NOWHERE_SET}/train.jsonl", "$NOWHERE_SET", "%NOWHERE%/a.jsonl", "${HOME}/x.jsonl"]
)
def test_environment_references_are_text(check, reference, monkeypatch):
    """None is replaced, set or not: a study means the same everywhere, and no secret gets into it."""
    monkeypatch.setenv("HOME", "/MARKER-home")
    message = refused(check(STUDY.replace("train.jsonl", f'"{reference}"')), reference.partition("/")[0])
    assert "MARKER" not in message
    refused(check(STUDY.replace("./tiny", f'"./{reference}"')), reference.partition("/")[0], "was not found")


class TestFiles:
    """What stands at the path."""

    def test_a_folder(self, sweeper, folder):
        for command in ("check", "run"):
            refused(sweeper(command, folder), f"{folder}: is a folder, not a study file")

    def test_a_pipe_is_not_waited_for(self, folder):
        os.mkfifo(folder / "pipe.yaml")
        for path in (folder / "pipe.yaml", Path("/dev/zero")):
            command = [sys.executable, "-m", "sweeper", "check", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr == f"error: {path}: is not a regular file\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
    def test_unreadable(self, sweeper):
        with tempfile.TemporaryDirectory() as name:  # not pytest's, which nobody else may enter
            Path(name).chmod(0o755)
            path = Path(name) / "study.yaml"
            path.write_text(STUDY)
            path.chmod(0)
            os.seteuid(65534)
            try:
                refused(sweeper("check", path), f"{path}: cannot be read: Permission denied")
            finally:
                os.seteuid(0)

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
    def test_a_file_whose_size_is_not_what_it_says(self, tmp_path):
        """Files of the kernel's say that they are empty; reading is bounded all the same."""
        (tmp_path / "endless.yaml").symlink_to("/proc/kallsyms" if os.geteuid() == 0 else "/proc/self/maps")
        with pytest.raises(StudyFileError, match=r"endless.yaml"):
            load_study(tmp_path / "endless.yaml")

    @pytest.mark.parametrize("name", ["a\0b.yaml", "\ud800.yaml", "x" * 5000])
    def test_what_cannot_be_a_name(self, tmp_path, name):
        with pytest.raises(StudyFileError, match=r"cannot be"):
            load_study(tmp_path / name)

    def test_through_a_link_that_leaves_the_folder_paths_begin_at_the_link(self, sweeper, folder, tmp_path):
        """As the shell has it. What it is about is where the link stands; nothing outside is looked at."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "study.yaml").write_text(STUDY)
        (folder / "study.yaml").symlink_to(outside / "study.yaml")
        assert sweeper("check", folder / "study.yaml").exit_code == 0
        refused(sweeper("check", outside / "study.yaml"), f"{outside}/train.jsonl: no such file")
        assert sorted(path.name for path in outside.iterdir()) == ["study.yaml"]

    def test_a_link_to_a_secret_tells_nothing_of_it(self, sweeper, folder, tmp_path):
        for content in ("HF_TOKEN=MARKER-hunter2\n", "a: [MARKER-hunter2\n", "MARKER-hunter2"):
            (tmp_path / "secret").write_text(content)
            (folder / "study.yaml").unlink(missing_ok=True)
            (folder / "study.yaml").symlink_to(tmp_path / "secret")
            assert "hunter2" not in refused(sweeper("check", folder / "study.yaml"), str(folder))


class TestRewardFunctions:
    """The one thing in a study file that is run: a function of a module, and only in training."""

    STUDY = STUDY.replace("{kind: sft, max_length: 16}", "{kind: grpo, rewards: [{kind: function, function: REF}]}")

    @pytest.mark.parametrize(
        "reference",
        [
            "../evil:f",
            "/tmp/evil:f",
            "evil:f()",
            "evil",
            "evil:__class__",
            "evil:f; import os",
            "a" * 300,
            "evil.:f",
            ":f",
            "os.path:join\n",
        ],
    )
    def test_references_that_are_none(self, check, folder, reference):
        (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n\ndef g(**columns):\n    return []\n")
        refused(check(self.STUDY.replace("REF", json.dumps(reference))), "study.yaml:7: technique.rewards.0.function")
        assert not (folder / "ran").exists()
