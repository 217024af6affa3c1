"""The registry: adapter versions with their files, checksums, lineage and stages, and the gate to production."""

from sweeper.registry.gate import GateResult
from sweeper.registry.lineage import Lineage
from sweeper.registry.registry import Registry
from sweeper.registry.stages import MOVES
from sweeper.registry.version import AdapterVersion
from sweeper.store import Stage

__all__ = ["MOVES", "AdapterVersion", "GateResult", "Lineage", "Registry", "Stage"]
