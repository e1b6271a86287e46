"""Imports every module with faults, which makes them known."""

from tests.chaos.faults import cards, clocks, disks, load, network, processes, redis_settings
from tests.chaos.faults.fault import FAULTS

MODULES = (cards, clocks, disks, load, network, processes, redis_settings)

__all__ = ["FAULTS", "MODULES"]
