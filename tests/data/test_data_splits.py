"""Splits: cut by content, limited, compared, and kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.config.data import DataConfig
from sweeper.data.splits import Splits, load_splits, read_prepared, write_splits
from sweeper.errors import DataError

ITN = Path(__file__).parents[2] / "studies" / "data" / "itn"


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"prompt": f"number {n} =>", "completion": f" {n}", "id": n} for n in range(start, start + count)]


def load(folder: Path, **config: Any) -> Splits:
    return load_splits(DataConfig(**config), folder)


def contents(rows: tuple[dict[str, Any], ...]) -> set[str]:
    return {row["completion"] for row in rows}


def test_the_shipped_data_load_as_they_are() -> None:
    splits = load(ITN, train="train.jsonl", validation="validation.jsonl", test="test.jsonl")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [2000, 200, 300]
    assert splits.notes == ()
    assert splits.unused[0] == "train.jsonl: left out, as nothing is learned from it: class (2,000 rows)"
    assert splits.kind == "prompt_completion"


def test_unnamed_splits_are_cut_from_train(tmp_path: Path) -> None:
    source = write(tmp_path, "a.jsonl", numbered(3000))
    splits = load(tmp_path, train=source, test_fraction=0.2)
    sizes = [len(splits.train), len(splits.validation), len(splits.test)]
    assert sum(sizes) == 3000
    assert 2000 < sizes[0] < 2200
    assert 240 < sizes[1] < 360
    assert 520 < sizes[2] < 680
    assert not contents(splits.train) & contents(splits.test)


def test_rows_keep_their_split_when_rows_are_added_or_moved(tmp_path: Path) -> None:
    before = load(tmp_path, train=write(tmp_path, "a.jsonl", numbered(500)))
    after = load(tmp_path, train=write(tmp_path, "b.jsonl", [*numbered(500, start=500), *reversed(numbered(500))]))
    assert contents(before.train) <= contents(after.train)
    assert contents(before.validation) <= contents(after.validation)
    assert contents(before.test) <= contents(after.test)


def test_changing_one_fraction_leaves_the_other_split(tmp_path: Path) -> None:
    source = write(tmp_path, "a.jsonl", numbered(500))
    narrow, wide = (load(tmp_path, train=source, test_fraction=fraction) for fraction in (0.1, 0.5))
    assert narrow.validation == wide.validation
    assert contents(narrow.test) < contents(wide.test)


@settings(max_examples=25, deadline=None)
@given(copies=st.lists(st.integers(1, 3), min_size=150, max_size=200))
def test_identical_rows_are_never_apart(tmp_path_factory: pytest.TempPathFactory, copies: list[int]) -> None:
    folder = tmp_path_factory.mktemp("copies")
    rows = [row for row, count in zip(numbered(len(copies)), copies, strict=True) for _ in range(count)]
    splits = load(folder, train=write(folder, "a.jsonl", rows), validation_fraction=0.3, test_fraction=0.3)
    assert not contents(splits.train) & contents(splits.validation)
    assert not contents(splits.train) & contents(splits.test)
    assert not contents(splits.validation) & contents(splits.test)


def test_only_the_missing_split_is_cut(tmp_path: Path) -> None:
    train, test = write(tmp_path, "a.jsonl", numbered(300)), write(tmp_path, "t.jsonl", numbered(20, start=900))
    splits = load(tmp_path, train=train, test=test)
    assert len(splits.test) == 20
    assert len(splits.train) + len(splits.validation) == 300
    assert splits.validation


def test_limits_mix_all_parts_and_only_add(tmp_path: Path) -> None:
    rows = [{"text": f"{kind} {n}"} for kind in ("first", "second") for n in range(500)]
    source = write(tmp_path, "a.jsonl", rows)
    few, more = (load(tmp_path, train=source, train_rows=n, validation_rows=5) for n in (100, 200))
    assert (len(few.train), len(more.train), len(few.validation)) == (100, 200, 5)
    kinds = [row["text"].split()[0] for row in few.train]
    assert 30 < kinds.count("first") < 70
    assert {row["text"] for row in few.train} < {row["text"] for row in more.train}
    assert kinds == sorted(kinds)


def test_duplicates_shared_rows_and_touching_prompts_are_noted(tmp_path: Path) -> None:
    rows = numbered(50)
    train = write(tmp_path, "a.jsonl", [*rows, *rows[:4], {"prompt": "What is 2+2?", "completion": "4"}])
    test = write(tmp_path, "t.jsonl", numbered(10, start=47))
    splits = load(tmp_path, train=train, validation=write(tmp_path, "v.jsonl", numbered(2, start=55)), test=test)
    assert splits.notes == (
        "train: 4 of 55 rows repeat an earlier row",
        "test: 3 of 10 rows are also in train; scores on them are too good",
        "test: 2 of 10 rows are also in validation; scores on them are too good",
        "train: in 1 of 55 rows the completion follows the prompt without a space or line break; "
        "they are joined without one",
    )


def test_several_files_make_one_split(tmp_path: Path) -> None:
    parts = [write(tmp_path, f"{n}.jsonl", numbered(100, start=100 * n)) for n in range(3)]
    splits = load(tmp_path, train=parts, validation_fraction=0.2, test_fraction=0.2)
    assert sum(len(rows) for rows in (splits.train, splits.validation, splits.test)) == 300


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split is empty: 1 rows are too few"):
        load(tmp_path, train=write(tmp_path, "a.jsonl", numbered(1)))
    with pytest.raises(DataError, match=r"the (validation|train) split is empty.*raise data.validation_fraction|lower"):
        load(tmp_path, train="a.jsonl", test="a.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="is empty"):
        load(tmp_path, train="a.jsonl", validation="empty.jsonl", test="a.jsonl")


def test_files_of_different_layouts_are_refused(tmp_path: Path) -> None:
    train, test = write(tmp_path, "a.jsonl", numbered(50)), write(tmp_path, "t.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match="same layout; test is text, train is prompt_completion"):
        load(tmp_path, train=train, test=test)


def test_the_row_that_does_not_fit_is_named_with_its_file(tmp_path: Path) -> None:
    good = write(tmp_path, "a.jsonl", numbered(50))
    bad = write(tmp_path, "b.jsonl", [*numbered(6), {"prompt": "x", "completion": True}])
    with pytest.raises(DataError, match=r"^b\.jsonl: row 7: 'completion' must be text; found true or false: True$"):
        load(tmp_path, train=[good, bad])


def test_prepared_splits_are_read_back_and_hashed(tmp_path: Path) -> None:
    rows = [{"prompt": f"\u2028é {n}\r\n", "completion": f'\u0085 {n}\t"quoted"'} for n in range(60)]
    source = tmp_path / "a.json"
    source.write_text(json.dumps(rows), encoding="utf-8")
    splits = load(tmp_path, train="a.json")
    prepared = write_splits(splits, tmp_path / "study" / "data")
    assert prepared.train == tmp_path / "study" / "data" / "train.jsonl"
    for name in ("train", "validation", "test"):
        path = getattr(prepared, name)
        assert tuple(read_prepared(path)) == getattr(splits, name)
        assert prepared.sha256[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert write_splits(splits, tmp_path / "again").sha256 == prepared.sha256
    assert sorted(p.name for p in prepared.train.parent.iterdir()) == ["test.jsonl", "train.jsonl", "validation.jsonl"]


def test_a_prepared_split_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: cannot be read: No such file or directory"):
        read_prepared(tmp_path / "train.jsonl")


def test_rows_of_one_prompt_or_group_stay_together(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n % 40}", "completion": f"a{n}", "author": f"p{n % 7}"} for n in range(200)]
    source = write(tmp_path, "a.jsonl", rows)
    for column, options in (("prompt", {}), ("author", {"group": "author"})):
        splits = load(tmp_path, train=source, test_fraction=0.2, validation_fraction=0.2, **options)
        by_row = {row["completion"]: row[column] for row in rows}
        found = [{by_row[row["completion"]] for row in each} for each in (splits.train, splits.validation, splits.test)]
        assert all(found) and not (found[0] & found[1] | found[0] & found[2] | found[1] & found[2])
    assert "author" not in splits.train[0]


def test_prompts_that_named_files_share_are_noted(tmp_path: Path) -> None:
    train = write(tmp_path, "a.jsonl", numbered(50))
    test = write(tmp_path, "t.jsonl", [{**row, "completion": "another"} for row in numbered(10, start=45)])
    splits = load(tmp_path, train=train, test=test)
    assert any("test: 5 of 10 rows have a prompt that is also in the train split" in note for note in splits.notes)
