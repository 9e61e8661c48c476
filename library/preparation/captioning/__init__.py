"""Captioners: models that put a picture into words, opened by transformers."""
