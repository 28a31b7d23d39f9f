"""A task that no rule was mended on: messages to a library, with a word that misleads."""

from __future__ import annotations

import random
from typing import Any

DESKS = {
    "loans": (
        "keep the book for two more weeks",
        "borrow a second copy",
        "bring back the novel late",
        "take three films home",
    ),
    "rooms": (
        "reserve a table by the window",
        "book the music room at five",
        "find a quiet place to study",
        "meet our reading group upstairs",
    ),
    "cards": (
        "replace my lost card",
        "sign up my daughter as a reader",
        "change the name on my pass",
        "pay the yearly fee",
    ),
    "printing": (
        "scan an old map",
        "get twenty copies in colour",
        "print a poster for school",
        "fix the paper jam",
    ),
    "events": (
        "hear the poet on Friday",
        "join the course for beginners",
        "bring children to the puppet show",
        "get seats for the lecture",
    ),
    "donations": (
        "give away my uncle's atlas",
        "leave a box of magazines",
        "offer our piano scores",
        "pass on school books",
    ),
}
ASIDES = (
    "before lunch",
    "after work",
    "with my son",
    "next week",
    "at the branch in town",
    "today",
)
OPENERS = ("May I", "we want to", "is it possible to", "somebody told me to ask how to", "I must")
ENDS = ("thanks", "it is urgent", "no hurry", "please call me", "yours, Ann")


def library(draw: random.Random) -> dict[str, Any]:
    """The desk of a library that a message is for, tagged with the message's end."""
    desk, end = draw.choice(list(DESKS)), draw.choice(ENDS)
    words = (draw.choice(OPENERS), draw.choice(DESKS[desk]), draw.choice(ASIDES))
    return {
        "prompt": f"{' '.join(words)}, {end}\ndesk:",
        "completion": f" {desk}",
        "tags": [end],
    }
