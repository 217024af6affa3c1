"""Every file of the corpus again, and a few seconds of new ones: what is found belongs in the corpus, mended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import data_files
import fuzzing
import pytest
import study_file
from drawing import inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TARGETS = {target.name: target for target in (study_file.TARGET, data_files.TARGET)}
FILES = [(target, path) for target in TARGETS.values() for path in target.corpus]


@pytest.mark.parametrize(("target", "path"), FILES, ids=[f"{target.name}/{path.name}" for target, path in FILES])
def test_the_corpus(target, path):
    with fuzzing.bounded():
        target.check(target.encode(path))
    suffix, content = target.decode(target.encode(path))
    assert (suffix, content) == (path.suffix, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_new_inputs(name):
    """The same ones in every run; the command that CONTRIBUTING names draws others, for as long as one likes."""
    target = TARGETS[name]

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs(target))
    def attempt(data):
        with fuzzing.bounded():
            target.check(data)

    attempt()


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32))
def test_reshaped_files_get_past_the_parser(seed):
    """Or all that is fuzzed is the parser."""
    import random

    from sweeper.config.yaml_source import parse

    rng = random.Random(seed)
    data = study_file.reshape((fuzzing.CORPUS / "study" / "everything.yaml").read_bytes(), rng, ["a", "lora"])
    text = data.decode()
    if not any(mark in text for mark in ("\\uD8", "\\ud8", "&id", "\ufeff")):
        assert isinstance(parse("s", text).data, dict | list) or "\n" not in text


@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_the_command_keeps_what_it_finds_and_says_so(tmp_path, engine):
    if engine == "atheris":
        pytest.importorskip("atheris")
    script = tmp_path / "target.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(fuzzing.__file__).parent)!r})\n"
        "from pathlib import Path\nimport fuzzing\n"
        f"fuzzing.CORPUS = Path({str(tmp_path)!r}) / 'corpus'\n"
        "def check(data):\n    assert b'x' not in data, 'an x'\n"
        "TARGET = fuzzing.Target('broken', check, lambda p: p.read_bytes(), lambda d: ('.txt', d),\n"
        "                        lambda: ['x', 'y'], lambda d, rng, words: d + rng.choice(words).encode(), ())\n"
        "sys.exit(fuzzing.main(TARGET, Path(__file__)))\n"
    )
    (tmp_path / "corpus" / "broken").mkdir(parents=True)
    (tmp_path / "corpus" / "broken" / "seed.txt").write_text("yyy")
    command = [sys.executable, str(script), "--seconds", "2", "--engine", engine, "--seed", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"TMPDIR": str(tmp_path), "PATH": ""}, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert "finding" in done.stdout
    found = list((tmp_path / "sweeper-fuzz-broken").iterdir())
    assert found and all(b"x" in path.read_bytes() for path in found)
