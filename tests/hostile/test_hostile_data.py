"""Hostile data files, each fed to ``sweeper check`` or to the readers: one message, exit code 2, nothing written.

Where an item of the list is tested: F is ``tests/data/test_data_formats.py``, R ``test_data_read.py``, S
``test_data_splits.py``, T ``test_data_tokens.py``, C ``tests/check/test_check_command.py``; "here" stands below.

===========================================  ================================================================
empty file; a header only                    R ``test_broken_files``; C ``test_empty_file``
a broken line in the middle                  R ``test_broken_files``; C ``test_broken_line``
mixed schemas                                F ``test_rows_that_do_not_fit``; S ``test_files_of_different_layouts``
missing and empty fields                     F ``test_rows_that_do_not_fit``; C ``test_column_missing_in_one_row``
a 5 MB single row                            R (JSONL, CSV); here (JSON, Parquet)
all rows longer than ``max_length``          C ``test_every_completion_cut_off``; here
every label masked                           here
duplicate rows across train and test         C ``test_duplicates_across_train_and_test``; S
invalid UTF-8                                R ``test_broken_files``; here (Parquet)
a Parquet file cut short                     R ``test_parquet_cut_short``; here (by the command line)
CSV with quotes and newlines                 R (good and broken); here (by the command line)
numbers where text is due                    F ``test_rows_that_do_not_fit``; here (Parquet)
a gzip bomb                                  R ``test_broken_files``; here (Parquet, whose pages are compressed too)
chat turns out of order, unknown roles       F ``test_rows_that_do_not_fit``; here (by the command line)
special tokens inside user text              T, C (reported); here (for chats, and that check says what it means)
===========================================  ================================================================
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from check_helpers import STUDY, refused, rows, write_rows

from sweeper.data import files
from sweeper.data.read import read_rows
from sweeper.errors import DataError

USER, ASSISTANT = {"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}


@pytest.fixture
def check(sweeper, write_study, folder):
    """Check the study with another file to train on; nothing may be written by it."""

    def run(name: str, study: str = STUDY) -> Any:
        path = write_study(text=study.replace("train.jsonl", name))
        before = sorted(folder.parent.rglob("*"))
        result = sweeper("check", path)
        assert sorted(folder.parent.rglob("*")) == before
        return result

    return run


def write_parquet(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


def large_row() -> list[dict[str, str]]:
    """Two rows, the second over the limit through its many columns, none of which is."""
    return [*rows(1), {**rows(1)[0], **{f"c{n}": "x" * 600_000 for n in range(9)}}]


def test_a_large_row_of_json_and_parquet_is_named(check, folder):
    (folder / "a.json").write_text(json.dumps(large_row()))
    refused(check("a.json"), "a.json: item 2: is a row of more than 5,000,000 bytes")
    write_parquet(folder / "a.parquet", pa.Table.from_pylist([{**large_row()[1], **row} for row in large_row()]))
    refused(check("a.parquet"), "a.parquet: row 1: is a row of more than 5,000,000 bytes")


def test_a_file_too_large_for_memory_is_refused_unread(check, folder):
    path = folder / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(files.FILE_LIMIT_BYTES + 1)  # sparse: takes no room
    refused(check("a.jsonl"), f"{path}: is larger than 2 GB", "split it and name the parts")


def test_every_prompt_and_every_row_longer_than_max_length(check, folder):
    write_rows(folder / "a.jsonl", [{"prompt": "a " * 40, "completion": f" {n}"} for n in range(40)])
    refused(check("a.jsonl"), "the prompt of every training row fills technique.max_length (16 tokens)", "raise it")
    write_rows(folder / "b.jsonl", [{"prompt": "a =>", "completion": f" {n}" + " b" * 40} for n in range(40)])
    result = check("b.jsonl")  # what is cut still has something to learn from
    assert result.exit_code == 0, result.output
    assert "warning: 100.0% of the training rows are longer than max_length 16" in result.stdout


def test_every_label_masked_in_chats(check, folder):
    """Of a conversation the last turn is learned: cut before it, there is no label left in any row."""
    for name in ("train", "validation", "test"):
        chats = [{"messages": [{"role": "user", "content": f"{'a ' * 40}{n}"}, ASSISTANT]} for n in range(40)]
        write_rows(folder / f"{name}.jsonl", chats)
    (folder / "tiny" / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    refused(check("train.jsonl"), "the prompt of every training row fills technique.max_length (16 tokens)")


def test_a_parquet_file_cut_short(check, folder):
    path = write_parquet(folder / "a.parquet", pa.Table.from_pylist(rows(100)))
    path.write_bytes(path.read_bytes()[:-20])
    refused(check("a.parquet"), f"{path}: is not a complete Parquet file")


def test_csv_with_quotes_and_newlines_is_read_and_a_broken_record_named(check, folder):
    lines = [f'"{n} ""a"",\nb =>", {n}' for n in range(40)]
    (folder / "a.csv").write_text("prompt,completion\n" + "\n".join(lines) + "\n")
    result = check("a.csv")
    assert result.exit_code == 0, result.output
    assert "train 40" in result.stdout
    lines[20] = '"20 "a",\nb =>", 20'
    (folder / "b.csv").write_text("prompt,completion\n" + "\n".join(lines) + "\n")
    refused(check("b.csv"), f"{folder}/b.csv:42: ", "is not valid CSV")


PARQUET = {
    "truth values": ({"text": [True, False]}, "row 1: 'text' must be text; found true or false: True"),
    "bytes": ({"text": [b"a"]}, "row 1: 'text' must be text; found bytes: b'a'"),
    "nothing": ({"text": pa.nulls(2)}, "row 1: 'text' is empty"),
    "a date beyond the calendar": (
        {"text": ["a"], "when": pa.array([2**31 - 1], pa.date32())},
        "rows 1 to 1: hold a date or a time that is out of range",
    ),
    "a time beyond the calendar": (
        {"text": ["a"], "when": pa.array([2**62], pa.timestamp("ms"))},
        "rows 1 to 1: hold a date or a time that is out of range",
    ),
    "no rows": ({"text": pa.array([], pa.string())}, "has no rows"),
    "no columns": ({}, "has no rows"),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_with_what_is_no_text(check, folder, name):
    columns, message = PARQUET[name]
    write_parquet(folder / "a.parquet", pa.table(columns))
    refused(check("a.parquet"), "a.parquet: ", message)


def test_two_columns_of_one_name_are_refused_as_one_would_be_lost(check, folder):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    write_parquet(folder / "a.parquet", table)
    refused(check("a.parquet"), "a.parquet: every column needs a unique name; found ['text', 'text']")


def test_invalid_utf8_in_a_parquet_column_of_texts(check, folder):
    path = write_parquet(
        folder / "a.parquet", pa.table({"text": ["MARKED"] * 3}), use_dictionary=False, compression="none"
    )
    path.write_bytes(path.read_bytes().replace(b"MARKED", b"\xff\xfeRKED"))
    refused(check("a.parquet"), "a.parquet: is not a complete Parquet file: ", "utf-8")


def test_a_pickled_type_in_a_parquet_file_is_never_run(folder, tmp_path):
    """pyarrow once unpickled this (CVE-2023-47248)."""
    ran = tmp_path / "ran"
    pickle = f"cos\nsystem\n(S'touch {ran}'\ntR.".encode()
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle}
    schema = pa.schema([pa.field("text", pa.string(), metadata=metadata)])
    write_parquet(folder / "a.parquet", pa.table([pa.array(["a"])], schema=schema))
    assert read_rows("a.parquet", folder) == [{"text": "a"}]
    assert not ran.exists()


class TestBombs:
    """Some kilobytes that unpack to gigabytes are refused before they fill the memory."""

    MOST = 1_500_000_000
    """Bytes that reading may take, pyarrow's own included."""

    @pytest.fixture(autouse=True)
    def _bounded(self):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < self.MOST

    def test_row_groups_that_unpack_to_more_than_a_file_may(self, check, folder, monkeypatch):
        monkeypatch.setattr(files, "FILE_LIMIT_BYTES", 50_000_000)  # or the test takes a minute
        path = folder / "a.parquet"
        table = pa.table({"text": ["x" * 4_000_000]})
        with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
            for _ in range(14):
                writer.write_table(table)
        assert path.stat().st_size < 50_000
        refused(check("a.parquet"), f"{path}: unpacks to more than 0.05 GB")

    def test_one_value_repeated_a_million_times(self, check, folder, monkeypatch):
        """The dictionary holds it once and the header says nothing of the rest."""
        monkeypatch.setattr(files, "FILE_LIMIT_BYTES", 50_000_000)
        repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * 10_000])
        path = write_parquet(folder / "a.parquet", pa.table({"text": repeated}), compression="zstd")
        assert path.stat().st_size < 200_000
        assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size < 1_000_000
        refused(check("a.parquet"), f"{path}: unpacks to more than 0.05 GB")

    def test_one_compressed_value(self, check, folder):
        table = pa.table({"text": ["x" * 60_000_000]})
        path = write_parquet(folder / "a.parquet", table, compression="zstd", use_dictionary=False)
        assert path.stat().st_size < 50_000
        refused(check("a.parquet"), f"{path}: row 1: is a row of more than 5,000,000 bytes")


CHATS = {
    "turns out of order": ([USER, USER, ASSISTANT], "row 3: 'messages', message 2: the turn of 'assistant' is due"),
    "the assistant first": ([ASSISTANT, USER], "row 3: 'messages', message 1: the turn of 'user' is due"),
    "a system message late": ([USER, {"role": "system", "content": "x"}], "message 2: 'system' may only come first"),
    "an unknown role": ([USER, {"role": "root", "content": "x"}], "row 3: 'messages', message 2: unknown role 'root'"),
    "a role that is a list": ([{"role": [["user"]], "content": "x"}], "message 1: unknown role a list of 1"),
    "a role with escapes": ([{"role": "\x1b[31muser", "content": "x"}], "message 1: unknown role"),
    "no content": ([USER, {"role": "assistant"}], "row 3: 'messages[2].content' is empty"),
}


@pytest.mark.parametrize("name", CHATS)
def test_chats_that_are_none(check, folder, name):
    turns, message = CHATS[name]
    write_rows(folder / "a.jsonl", [*[{"messages": [USER, ASSISTANT]}] * 2, {"messages": turns}])
    told = refused(check("a.jsonl"), "a.jsonl: ", message)
    assert "\x1b" not in told


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("field", ["role", "label", "reference", "text"])
def test_nesting_at_the_edge_of_what_json_reads(folder, field):
    """Where the reader just manages, what looks at the value afterwards must not fail either."""
    from sweeper.config.data import DataConfig
    from sweeper.data.formats import convert

    lines = {
        "role": '{"messages": [{"role": %s, "content": "a"}]}',
        "label": '{"prompt": "a", "completion": "b", "label": %s}',
        "reference": '{"prompt": "a", "reference": %s}',
        "text": '{"text": %s}',
    }
    learns = {"label": "labelled", "reference": "prompts"}.get(field, "answers")
    edge = sys.getrecursionlimit()
    for depth in (10, *range(edge - 80, edge + 20)):
        (folder / "a.jsonl").write_text(lines[field] % nested(depth))
        with pytest.raises(DataError, match=r"is nested too deeply|must be|unknown role"):
            convert(read_rows("a.jsonl", folder), DataConfig(train=("a.jsonl",)), "a.jsonl", learns)


def test_a_margin_of_more_digits_than_a_number_has(check, folder):
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 10**400}]
    write_rows(folder / "a.jsonl", pairs)
    message = refused(check("a.jsonl", STUDY.replace("kind: sft", "kind: dpo")), "row 1: 'margin' must be a number")
    assert len(message) < 300


def test_special_tokens_of_the_model_in_a_chat_are_reported(check, folder):
    """They cannot be told from the template's own: TRL cuts a chat into tokens after it was put together."""
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    (folder / "tiny" / "chat_template.jinja").write_text(template)
    chats = [{"messages": [{"role": "user", "content": f"a {n}"}, ASSISTANT]} for n in range(39)]
    forged = {"messages": [{"role": "user", "content": "a </s> <s> b"}, ASSISTANT]}
    for name in ("train", "validation", "test"):
        write_rows(folder / f"{name}.jsonl", [*chats, forged])
    result = check("train.jsonl")
    assert result.exit_code == 0, result.output
    assert (
        "warning: train: 1 of 40 rows contain a special token of the model in their text (first: row 40 of those "
        "counted), which the model may read as the end of a turn" in result.stdout
    )


class TestLinks:
    """A study may use data from elsewhere; what is refused is said of the file as it was named."""

    def test_a_link_that_leaves_the_folder_is_read(self, check, folder, tmp_path):
        (folder / "train.jsonl").rename(tmp_path / "elsewhere.jsonl")
        (folder / "train.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
        assert check("train.jsonl").exit_code == 0

    def test_a_link_to_a_secret_tells_nothing_of_it(self, check, folder, tmp_path):
        (tmp_path / "secret").write_text("password: MARKER-hunter2\n")
        for suffix in (".jsonl", ".json", ".csv", ".parquet"):
            (folder / f"a{suffix}").symlink_to(tmp_path / "secret")
            assert "hunter2" not in refused(check(f"a{suffix}"), f"{folder}/a{suffix}")

    def test_a_link_to_a_pipe_is_refused_without_waiting(self, check, folder, tmp_path):
        import os

        os.mkfifo(tmp_path / "pipe")
        (folder / "a.jsonl").symlink_to(tmp_path / "pipe")
        refused(check("a.jsonl"), "is neither a file nor a folder")


def test_half_a_character_in_a_column_name_is_harmless(check, folder):
    (folder / "a.jsonl").write_text('{"\\ud800\\u202e": "a"}\n')
    message = refused(check("a.jsonl"), "a.jsonl: needs the columns")
    assert "\u202e" not in message
