"""What the tests of `gate` share."""

from __future__ import annotations

from typing import Any

import pytest

Capture = pytest.CaptureFixture[str]


Gate = Any
