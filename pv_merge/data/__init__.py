"""Rows that people bring: pairs, instructions, prompts, questions."""
