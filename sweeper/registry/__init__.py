"""The registry: adapter versions with their files, checksums, lineage and stages."""

from sweeper.registry.lineage import Lineage
from sweeper.registry.registry import AdapterVersion, Registry
from sweeper.registry.stages import MOVES
from sweeper.store import Stage

__all__ = ["MOVES", "AdapterVersion", "Lineage", "Registry", "Stage"]
