"""Texts whose characters are not one column each, by their writing."""

from __future__ import annotations

WRITINGS = {
    "thai": (
        "\u0e14\u0e35\u0e21\u0e32\u0e01",
        "\u0e44\u0e21\u0e48\u0e14\u0e35\u0e40\u0e25\u0e22",
        "\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48",
    ),
    "hindi": (
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
        "\u0905\u091a\u094d\u091b\u093e",
    ),
    "cjk": ("\u4f60\u597d", "\u65e5\u672c\u8a9e\u306e\u6587", "\ud55c\uad6d\uc5b4"),
    "marks": ("cafe\u0301", "n\u0303a\u0308o\u0302", "a\u0301\u0302\u0303"),
    "emoji": ("\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f 1\ufe0f\u20e3"),
    "joined emoji": (
        "\U0001f469\u200d\U0001f680",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "no",
    ),
}
