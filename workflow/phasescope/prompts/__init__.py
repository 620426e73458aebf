"""Prompt tables, matched pairs and splits; rendering through the chat template."""

from phasescope.prompts.rendering import render, render_answer, rendered_hash, template_suffix
from phasescope.prompts.table import COLUMNS, PromptTable, read_prompts

__all__ = [
    "COLUMNS",
    "PromptTable",
    "read_prompts",
    "render",
    "render_answer",
    "rendered_hash",
    "template_suffix",
]
