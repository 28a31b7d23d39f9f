"""The improvement log: its records and tables, how they are written and read, and their order."""

from pytest_ftloop.core.chain import chain_from, next_number
from pytest_ftloop.log.files import RECORD_NAME, Files, FolderFiles, unwritable, write_atomically
from pytest_ftloop.log.improvement import FOLDER, ImprovementLog, LogView, verify
from pytest_ftloop.log.record import CURVE_STEPS, as_logged, from_record, thinned, to_yaml
from pytest_ftloop.log.table import ExampleTable, examples_csv

__all__ = [
    "CURVE_STEPS",
    "FOLDER",
    "RECORD_NAME",
    "ExampleTable",
    "Files",
    "FolderFiles",
    "ImprovementLog",
    "LogView",
    "as_logged",
    "chain_from",
    "examples_csv",
    "from_record",
    "next_number",
    "thinned",
    "to_yaml",
    "unwritable",
    "verify",
    "write_atomically",
]
