"""`python -m pytest_ftloop`: the command `ftloop`."""

import sys

from pytest_ftloop.cli import main

sys.exit(main())
