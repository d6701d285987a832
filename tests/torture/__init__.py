"""Kills, full disks and load, in numbers: ``make torture``."""
