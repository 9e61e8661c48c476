"""The border between a user's words and the program: option sections and their parser. No torch here.

A file holds the sections of one concern; `fields.py` says how an option is declared. `--seed` is the line
`seed: int | None = option(...)` of its section: grep for the name and a colon. A script's Run lists the
sections that it has.
"""
