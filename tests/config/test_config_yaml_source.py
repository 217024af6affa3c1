"""YAML as study files may write it, and what is refused before anything is built from it."""

from __future__ import annotations

import os
import socket
import time

import pytest

from sweeper.config.yaml_source import MAX_BYTES, parse, read_text
from sweeper.errors import StudyFileError


def refused(text: str) -> str:
    with pytest.raises(StudyFileError) as caught:
        parse("s.yaml", text)
    return str(caught.value)


def test_scalars_follow_yaml_1_2():
    data = parse("s", "a: 1e-4\nb: no\nc: 0x10\nd: '5'\ne: 5\nf: ~\ng: true\nh: 1_000\ni: 2024-01-01\nj: 010").data
    assert data == {
        "a": 1e-4,
        "b": "no",
        "c": "0x10",
        "d": "5",
        "e": 5,
        "f": None,
        "g": True,
        "h": "1_000",
        "i": "2024-01-01",
        "j": 10,
    }


def test_lines_of_keys_and_of_what_is_missing():
    source = parse("s", "a:\n  b: 1\n  c:\n    - x\n    - y\n")
    assert source.line(("a", "b")) == 2
    assert source.line(("a", "c", 1)) == 5
    assert source.line(("a", "nothing", "below")) == 1


def test_an_environment_reference_is_plain_text():
    assert parse("s", "a: ${HOME}\nb: $HF_TOKEN").data == {"a": "${HOME}", "b": "$HF_TOKEN"}


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!include x", "!!binary aGk="]
)
def test_tags_are_refused_and_run_nothing(tag):
    message = refused(f"a: 1\nb: {tag}\n")
    assert message.startswith("s.yaml:2: the tag ")


def test_anchors_are_refused_so_that_nothing_explodes():
    bomb = "a: &a [x,x]\n" + "".join(f"l{n}: &l{n} [*a, *a, *a, *a]\n" for n in range(15))
    started = time.perf_counter()
    message = refused(bomb)
    assert "s.yaml:1: anchors and aliases are not supported" in message
    assert time.perf_counter() - started < 1


def test_a_duplicate_key_names_both_lines():
    assert refused("a: 1\nb: 2\na: 3\n") == "s.yaml:3: a: is given twice; first on line 1"


@pytest.mark.parametrize("text", ["[" * 10_000 + "]" * 10_000, "{a: " * 10_000 + "1" + "}" * 10_000])
def test_deep_nesting_is_refused(text):
    assert "nested deeper than 24 levels" in refused(text)


def test_too_many_values_are_refused():
    assert "more than 50000 values" in refused("[" + "1," * 60_000 + "]")


@pytest.mark.parametrize(
    "text, line", [("a: [1, 2\nb: 3\n", 2), ("a: b: c\n", 1), ("a:\n\t- 1\n", 2), ("'a\n", 2), ("- a\nb: 1\n", 2)]
)
def test_broken_yaml_names_its_line(text, line):
    message = refused(text)
    assert "is not valid YAML" in message
    assert message.startswith(f"s.yaml:{line}:"), message


def test_a_key_that_is_no_word_is_refused():
    assert "s.yaml:1: a key must be a plain word" in refused("[1, 2]: 3\n")


def test_two_documents_are_refused():
    assert "s.yaml:2: is not valid YAML" in refused("a: 1\n---\nb: 2\n")


def test_control_characters_are_refused():
    assert "not valid YAML" in refused("a: \x1b[31mred\n")


def test_a_huge_integer_is_refused_without_delay():
    assert isinstance(parse("s", f"a: {'9' * 5000}").data["a"], float | str | int)


class TestFiles:
    def read(self, path):
        with pytest.raises(StudyFileError) as caught:
            read_text(path)
        return str(caught.value)

    def test_missing(self, tmp_path):
        message = self.read(tmp_path / "no.yaml")
        assert "no such file" in message
        assert "sweeper init" in message

    def test_folder(self, tmp_path):
        assert "is a folder" in self.read(tmp_path)

    def test_fifo(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in self.read(tmp_path / "pipe")

    def test_socket(self, tmp_path):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "s"))
            assert "not a regular file" in self.read(tmp_path / "s")

    def test_too_large(self, tmp_path):
        path = tmp_path / "big.yaml"
        path.write_bytes(b"#" * (MAX_BYTES * 10))
        assert "is larger than 1000 kB" in self.read(path)

    @pytest.mark.parametrize("content", [b"name: a\0b\n", "name: a\n".encode("utf-16")])
    def test_nul_bytes_and_utf16(self, tmp_path, content):
        path = tmp_path / "s.yaml"
        path.write_bytes(content)
        assert "NUL bytes or is UTF-16" in self.read(path)

    def test_not_utf8_names_the_line(self, tmp_path):
        path = tmp_path / "s.yaml"
        path.write_bytes(b"a: 1\nb: \xff\n")
        assert f"{path}:2: is not UTF-8 text" in self.read(path)

    def test_a_byte_order_mark_and_crlf_are_fine(self, tmp_path):
        path = tmp_path / "s.yaml"
        path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
        source = parse("s", read_text(path))
        assert source.data == {"a": 1, "b": 2}
        assert source.line(("b",)) == 2

    def test_unreadable(self, tmp_path):
        path = tmp_path / "s.yaml"
        path.write_text("a: 1")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
        assert "cannot be read: Permission denied" in self.read(path)

    def test_a_link_that_leads_out_is_read_as_the_file_it_is(self, tmp_path):
        (tmp_path / "out.yaml").write_text("a: 1")
        inner = tmp_path / "in"
        inner.mkdir()
        (inner / "s.yaml").symlink_to(tmp_path / "out.yaml")
        assert read_text(inner / "s.yaml") == "a: 1"

    def test_a_dangling_link(self, tmp_path):
        (tmp_path / "s.yaml").symlink_to(tmp_path / "nowhere")
        assert "no such file" in self.read(tmp_path / "s.yaml")

    def test_a_loop_of_links(self, tmp_path):
        (tmp_path / "s.yaml").symlink_to(tmp_path / "s.yaml")
        assert "cannot be read" in self.read(tmp_path / "s.yaml")


def test_parsing_takes_time_by_the_length_of_a_file_not_by_its_square():
    def seconds(keys):
        text = "\n".join(f"key{n}: value" for n in range(keys))
        took = []
        for _ in range(5):
            started = time.process_time()
            parse("s", text)
            took.append(time.process_time() - started)
        return min(took)  # other processes only ever add to it

    assert seconds(20_000) < 60 * seconds(2_000)  # its square would be 100
