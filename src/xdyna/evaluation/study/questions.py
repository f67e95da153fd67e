"""What is asked about each video. The paper gives the three names and the scale; the wording is ours."""

from __future__ import annotations

from dataclasses import dataclass

LOWEST, HIGHEST = 0, 5
"""The scale of the paper's Table 3; answers are whole numbers."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        key: its name in files and tables.
        label: its name in the paper.
        text: what a participant reads.
    """

    key: str
    label: str
    text: str


QUESTIONS = (
    Question(
        "FG",
        "FG-Dyn",
        "Foreground dynamics: how alive and natural is the motion of the person, hair and clothes included?",
    ),
    Question(
        "BG",
        "BG-Dyn",
        "Background dynamics: how alive and natural is the motion of what surrounds the person?",
    ),
    Question("ID", "ID", "Identity: how well does the person stay the one in the reference picture?"),
)
KEYS = tuple(question.key for question in QUESTIONS)
OVERALL = "Overall"
"""Mean of the three answers about one video; Table 3's last column."""
LABELS = {question.key: question.label for question in QUESTIONS} | {OVERALL: OVERALL}
