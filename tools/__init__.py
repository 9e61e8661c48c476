"""Conversion and model tools, each a thin command over library/."""
