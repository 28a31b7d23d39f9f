"""The improvement log: its records and tables, how they are written and read, and their order."""

from pytest_ftloop.core.chain import chain_from, next_number
from pytest_ftloop.log.consistent import verify
from pytest_ftloop.log.files import FOLDER, RECORD_NAME, FolderFiles, unwritable
from pytest_ftloop.log.improvement import ImprovementLog
from pytest_ftloop.log.record import as_logged
from pytest_ftloop.log.view import LogView

__all__ = [
    "FOLDER",
    "RECORD_NAME",
    "FolderFiles",
    "ImprovementLog",
    "LogView",
    "as_logged",
    "chain_from",
    "next_number",
    "unwritable",
    "verify",
]
