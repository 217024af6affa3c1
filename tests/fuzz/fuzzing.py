"""Runs a fuzz target for a while: with atheris where it is installed, else with hypothesis.

A target takes any bytes. Whatever it raises is a finding: the bytes are kept in its ``found/`` folder, and belong, once
mended, in its corpus, which the tests replay. Bounds are part of it: an input that takes longer than ``LIMIT_S``
seconds or more than ``LIMIT_MB`` megabytes is a finding too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 10
LIMIT_MB = 3000
LONGEST = 4096
"""Bytes of an input: enough for what a grammar can do, and quick."""

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        name: Of the target; its seeds are in ``corpus/NAME``.
        check: Takes any bytes and raises on a finding.
        encode: From a file of the corpus to the bytes that ``check`` takes; ``decode`` to a file's suffix and content.
        words: Gives what files of this kind are made of.
        reshape: Changes a few parts of what such a file says; see ``reshaping.py``.
        modules: Modules whose branches atheris watches.
    """

    name: str
    check: Callable[[bytes], None]
    encode: Callable[[Path], bytes]
    decode: Callable[[bytes], tuple[str, bytes]]
    words: Callable[[], Sequence[str]]
    reshape: Callable[[bytes, random.Random, Sequence[str]], bytes]
    modules: Sequence[str]

    @property
    def corpus(self) -> list[Path]:
        """Its seeds, and whatever was found once."""
        return sorted(path for path in (CORPUS / self.name).iterdir() if path.is_file())


def main(target: Target, script: Path) -> int:
    """Fuzz for as long as the command line says; return 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=f"Fuzz {target.name}.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--engine", choices=("auto", "atheris", "hypothesis"), default="auto")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--atheris-arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.atheris_arguments is not None:  # the process that the code below starts
        return _inside_atheris(target, options.atheris_arguments)
    found = Path(tempfile.gettempdir()) / f"sweeper-fuzz-{target.name}"
    found.mkdir(exist_ok=True)
    engine = options.engine if options.engine != "auto" else "atheris" if _has_atheris() else "hypothesis"
    if engine == "atheris" and not _has_atheris():
        print("atheris is not installed: `pip install atheris`, or --engine hypothesis", file=sys.stderr)
        return 2
    print(f"{target.name}: {engine}, {options.seconds} s, seed {options.seed}; findings go to {found}", flush=True)
    run = _with_atheris if engine == "atheris" else _with_hypothesis
    return run(target, script, options.seconds, options.seed, found)


def _has_atheris() -> bool:
    from importlib.util import find_spec

    return find_spec("atheris") is not None


def _with_atheris(target: Target, script: Path, seconds: int, seed: int, found: Path) -> int:
    """Run libFuzzer in a process of its own, again after every finding, until the time is over."""
    ends, findings = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as name:
        seeds, words = Path(name) / "seeds", Path(name) / "words"
        seeds.mkdir()
        for path in target.corpus:
            (seeds / path.name).write_bytes(target.encode(path))
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words()))
        while (left := int(ends - time.monotonic())) > 0:
            arguments = (f"-max_total_time={left}", f"-seed={seed + findings}", f"-dict={words}", f"-timeout={LIMIT_S}")
            arguments += (f"-rss_limit_mb={LIMIT_MB}", f"-max_len={LONGEST}", f"-artifact_prefix={found}/")
            arguments += ("-print_final_stats=1", "-verbosity=1", str(seeds))
            done = subprocess.run([sys.executable, str(script), "--atheris-arguments", *arguments])
            if done.returncode == 0:
                break
            findings += 1
    print(f"{target.name}: {findings} finding(s)")
    return 1 if findings else 0


def _escaped(word: str) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\x{byte:02x}" for byte in word.encode()
    )


def _inside_atheris(target: Target, arguments: Sequence[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=list(target.modules)):
        for path in target.corpus:  # so that all that is imported late is watched too
            target.check(target.encode(path))
    words = target.words()

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.4:
            return bytes(atheris.Mutate(data, longest))
        return target.reshape(data, rng, words)[:longest]

    atheris.Setup([sys.argv[0], *arguments], target.check, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


def _with_hypothesis(target: Target, script: Path, seconds: int, seed: int, found: Path) -> int:
    """Draw inputs until the time is over, in rounds; what a round finds is made smaller and kept."""
    from drawing import inputs
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    runs, findings, ends = 0, 0, time.monotonic() + seconds
    drawn = inputs(target)
    failed: list[tuple[bytes, Exception]] = []

    def attempt(data: bytes) -> None:
        nonlocal runs
        if time.monotonic() > ends:
            return
        runs += 1
        try:
            with bounded():
                target.check(data)
        except Exception as error:
            failed.append((data, error))
            raise

    while time.monotonic() < ends:
        settled = settings(
            max_examples=2000,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        try:
            seeded(seed)(settled(given(drawn)(attempt)))()
        except Exception:  # where time runs out meanwhile, hypothesis finds it flaky
            if not failed:
                raise
            findings += 1
            smallest, error = failed[-1]
            failed.clear()
            suffix, content = target.decode(smallest)
            path = found / f"{hashlib.sha256(smallest).hexdigest()[:12]}{suffix}"
            path.write_bytes(content)
            print(f"finding: {type(error).__name__}: {error}"[:500], path, sep="\n  ", flush=True)
        seed += 1
    print(f"{target.name}: {runs:,} executions, {findings} finding(s)")
    return 1 if findings else 0


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise ``TimeoutError`` or ``MemoryError`` in what takes longer or more than it may."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"took longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    signal.alarm(LIMIT_S)
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_MB * 1_000_000, hard))
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
