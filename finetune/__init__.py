"""Thin commands that prepare a dataset: captions, tags, metadata, buckets."""
