"""Reading sources: what works, and what each broken file is told."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweeper.data.read import read_rows
from sweeper.errors import DataError

ROWS = [{"prompt": "one =>", "completion": " 1"}, {"prompt": 'zwölf,\n"dozen" =>', "completion": " 12\u2028"}]


def write(folder: Path, name: str, content: str | bytes) -> str:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def fault(source: str, base: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(source, base)
    return str(caught.value)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_files_with_and_without_byte_order_mark(tmp_path: Path, mark: str) -> None:
    quoted = 'prompt,completion\r\none =>, 1\r\n"zwölf,\n""dozen"" =>", 12\u2028\r\n\r\n'
    for name, content in {
        "a.jsonl": "\n" + jsonl(ROWS).replace("\n", "\r\n") + "\n\n",
        "b.json": json.dumps(ROWS, indent=1, ensure_ascii=False),
        "c.csv": quoted,
    }.items():
        assert read_rows(write(tmp_path, name, mark + content), tmp_path) == ROWS


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read_rows("a.parquet", tmp_path) == ROWS
    assert read_rows(str(tmp_path / "a.parquet"), Path("/elsewhere")) == ROWS


def test_parquet_in_a_partitioned_folder_gains_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "language=de"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    assert read_rows("language=de/a.parquet", tmp_path) == ROWS


def test_folders_written_by_datasets(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"train": data, "dev": data.select([0])}).save_to_disk(str(tmp_path / "several"))
    assert read_rows("plain", tmp_path) == ROWS
    assert read_rows("several:train", tmp_path) == ROWS
    assert read_rows("several:dev", tmp_path) == ROWS[:1]
    assert "write one of" in fault("several", tmp_path)
    assert "several:dev" in fault("several", tmp_path)
    assert "no split 'tst'; it has train, dev" in fault("several:tst", tmp_path)
    assert "no splits" in fault("plain:train", tmp_path)
    next((tmp_path / "plain").glob("*.arrow")).write_bytes(b"cut short")
    assert "cannot be read as a folder of datasets" in fault("plain", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", jsonl(ROWS) + '{"prompt": "x\n' + jsonl(ROWS), "a.jsonl:3: is not valid JSON"),
        ("a.jsonl", jsonl(ROWS) + "[1, 2]\n", "a.jsonl:3: a JSON object {...} is due on every line; found a list"),
        ("a.jsonl", jsonl(ROWS) + "null\n", "a.jsonl:3: a JSON object {...} is due on every line; found null"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "\xff"}\n'.encode("latin-1"), "a.jsonl:2: is not UTF-8 (byte 0xff)"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "\0"}\n', "a.jsonl:2: holds a NUL byte"),
        ("a.jsonl", jsonl(ROWS).encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.jsonl", jsonl([{"text": "a"}, {"text": "x" * 5_000_000}]), "a.jsonl:2: is a row of more than 5,000,000"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: is nested too deeply"),
        ("a.jsonl", '{"n": ' + "9" * 5000 + "}", "a.jsonl:1: is not usable JSON"),
        ("a.jsonl", gzip.compress(b"0" * 100_000_000), "is compressed (gzip); unpack it first"),
        (
            "a.jsonl.gz",
            gzip.compress(b"{}", mtime=0),
            "unknown file type '.gz'; readable are .csv, .json, .jsonl, .parquet",
        ),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", " \n\n", "is empty"),
        ("a.json", "[]", "has no rows"),
        ("a.json", '{"prompt": "a"}', "a list of objects is due; found an object"),
        ("a.json", '[{"a": 1},\n3]', "item 2: an object is due; found a number"),
        ("a.json", '[{"a": 1},\n{]', "a.json:2: is not valid JSON"),
        ("a.csv", "", "is empty"),
        ("a.csv", "prompt,completion\n", "has a header but no rows"),
        ("a.csv", "prompt,prompt\na,b\n", "a.csv:1: every column needs a unique name"),
        ("a.csv", "prompt,\na,b\n", "a.csv:1: every column needs a unique name"),
        ("a.csv", 'prompt,completion\n"two\nlines",b\na,b,c\n', "a.csv:4: 3 values for 2 columns"),
        (
            "a.csv",
            'prompt,completion\na,b\nc,"never closed\nd,e\n',
            "a.csv:3: the record that begins here is not valid",
        ),
        ("a.csv", "prompt,completion\na," + "x" * 5_000_001 + "\n", "a.csv:2: is a row of more than 5,000,000 bytes"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet", b"PAR1 not really", "is not a complete Parquet file"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    write(tmp_path, name, content)
    message = fault(name, tmp_path)
    assert told in message
    assert message.startswith(str(tmp_path / name))
    assert len(message) < 1000


def test_parquet_cut_short(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for length in (3, len(whole) // 2, len(whole) - 1):
        write(tmp_path, "cut.parquet", whole[:length])
        assert "is not a complete Parquet file" in fault("cut.parquet", tmp_path)


def test_missing_files_say_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", jsonl(ROWS))
    assert fault("trian.jsonl", tmp_path) == f"{tmp_path}/trian.jsonl: no such file; did you mean 'train.jsonl'?"
    assert f"{tmp_path}/data/x.jsonl: no such file; its folder cannot be listed" in fault("data/x.jsonl", tmp_path)
    assert "no such file" in fault("train.jsonl/x.csv", tmp_path)
    assert "is a file and has no splits; leave out ':dev'" in fault("train.jsonl:dev", tmp_path)


def test_what_is_not_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    assert "is a folder, but not one that datasets.save_to_disk wrote" in fault("folder.jsonl", tmp_path)
    assert "is neither a file nor a folder" in fault("pipe.jsonl", tmp_path)
    assert "is neither a file nor a folder" in fault("/dev/zero", tmp_path)
    assert "cannot be read: Too many levels of symbolic links" in fault("loop.jsonl", tmp_path)
    assert "cannot be read: File name too long" in fault("x" * 5000, tmp_path)
    assert "cannot be read: embedded null byte" in fault("a\0b.jsonl", tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_file_whose_reading_fails(tmp_path: Path) -> None:
    # Permissions do not bind root; this regular file fails to read for everyone.
    (tmp_path / "a.jsonl").symlink_to("/proc/self/mem")
    assert fault("a.jsonl", tmp_path) == f"{tmp_path}/a.jsonl: cannot be read: Input/output error"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_files_and_folders_without_permission() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, "a.jsonl", jsonl(ROWS))
        (folder / "closed").mkdir(mode=0)
        (folder / "a.jsonl").chmod(0)
        folder.chmod(0o755)
        os.seteuid(65534)
        try:
            for source in ("a.jsonl", "closed", "closed/a.jsonl"):
                assert "cannot be read: Permission denied" in fault(source, folder)
        finally:
            os.seteuid(0)


def test_hub_name_where_no_hub_can_be_reached(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from sweeper.data.read import read_rows; from sweeper.errors import DataError\n"
        "try: read_rows('nobody/has-this-data:train', Path())\n"
        "except DataError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    output = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.startswith(
        "nobody/has-this-data: no such file or folder (nobody/has-this-data:train), and not"
    )


def test_importing_the_room_is_light() -> None:
    script = (
        "import sys, sweeper.data.read, sweeper.data.splits, sweeper.data.rendering\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow', 'pandas') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
