"""Fuzzes the study-file loader, and all that is asked of a study before its data and model are looked at.

    python tests/fuzz/study_file.py --seconds 600

Whatever a file holds, it is a study that can be stored and read back as it was, or a ``UserError`` that names the file.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import Target, main
from reshaping import reshaped

YAML = ("? ", "- ", ": ", "|\n", ">\n", "&a ", "*a", "!!python/object/apply:os.system ", "%YAML 1.1\n---\n", "---\n")
VALUES = ("null", "~", "true", "no", ".nan", "-.inf", "1e400", "1e-400", "-1", "0", "0x7f", "9" * 30, "${HOME}", "''")
ODD = (
    "\ufeff",
    "\u202e",
    "\u2028",
    "\U0001f600",
    "\0",
    "\t",
    "\r\n",
    "../../",
    "'; drop table studies; --",
    "<script>",
)


def check(data: bytes) -> None:
    """Load a study file of these bytes, and ask all that needs neither data nor model."""
    from sweeper.config.loader import StudyFile, load_study
    from sweeper.errors import UserError

    path = scratch() / "study.yaml"
    path.write_bytes(data)
    try:
        found = load_study(path)
        for study in (found,) if isinstance(found, StudyFile) else found.stages.values():
            _consider(study)
    except UserError as error:
        assert str(path) in str(error), f"the message does not name the file: {error}"
        assert len(str(error)) < 200_000, "the message is longer than anybody reads"


def _consider(study) -> None:  # type: ignore[no-untyped-def]
    from sweeper.check.length import corners
    from sweeper.config.study import StudyConfig
    from sweeper.presets.choices import ModelSize, resolve_choices
    from sweeper.study.validation import combination_faults, condition_faults, function_faults, preset_faults, refuse

    config = study.config
    assert StudyConfig.model_validate_json(config.model_dump_json()) == config, "it is not read back as it was stored"
    refuse(study, [*preset_faults(config), *combination_faults(config), *function_faults(config, study.folder)])
    sizes = {name: ModelSize() for name in config.models}
    resolved = resolve_choices(config, 100, sizes, dict.fromkeys(config.adapters))
    refuse(study, list(condition_faults(config, resolved.space)))
    assert corners(resolved.space, 100)


@cache
def scratch() -> Path:
    """Return a folder for the file, in memory where there is one."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="sweeper-fuzz-", dir=memory if memory.is_dir() else None))


def words() -> list[str]:
    """Return every key and word that a study file can have."""
    from sweeper.config.parameters import PARAMETERS
    from sweeper.config.study import StudyConfig
    from sweeper.config.technique import TECHNIQUES

    found = set(PARAMETERS).union(*(each.parameters for each in TECHNIQUES.values()))

    def walk(schema: object) -> None:
        if isinstance(schema, dict):
            found.update(schema.get("properties", ()))
            found.update(word for word in (*schema.get("enum", ()), schema.get("const")) if isinstance(word, str))
            for part in schema.values():
                walk(part)
        elif isinstance(schema, list):
            for part in schema:
                walk(part)

    walk(StudyConfig.model_json_schema())
    return [*sorted(found), *YAML, *VALUES, *ODD]


def reshape(data: bytes, rng: Random, words: Sequence[str]) -> bytes:
    """Return a study file that says something else in a few places."""
    try:
        value = yaml.load(data, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        value = {}
    changed = reshaped(value, rng, words)
    if rng.random() < 0.2:
        return json.dumps(changed, default=str).encode()  # which is YAML too
    try:
        text: str = yaml.dump(changed, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None)
    except (yaml.YAMLError, ValueError):  # half a character
        return json.dumps(changed, default=str).encode()
    return text.encode()


TARGET = Target(
    name="study",
    check=check,
    encode=lambda path: path.read_bytes(),
    decode=lambda data: (".yaml", data),
    words=words,
    reshape=reshape,
    modules=("sweeper.config", "sweeper.presets", "sweeper.study.validation", "sweeper.check.length"),
)

if __name__ == "__main__":
    sys.exit(main(TARGET, Path(__file__)))
