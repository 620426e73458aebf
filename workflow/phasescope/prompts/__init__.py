"""Prompt tables, matched pairs and splits; public benchmarks; rendering through the template."""

from phasescope.prompts.rendering import render, render_answer, rendered_hash, template_suffix
from phasescope.prompts.sources import TableSource, make_table, source_of
from phasescope.prompts.table import COLUMNS, PromptTable, read_prompts
from phasescope.prompts.uses import MAIN, USES, Chosen, Named, choose_tables

__all__ = [
    "COLUMNS",
    "MAIN",
    "USES",
    "Chosen",
    "Named",
    "PromptTable",
    "TableSource",
    "choose_tables",
    "make_table",
    "read_prompts",
    "render",
    "render_answer",
    "rendered_hash",
    "source_of",
    "template_suffix",
]
