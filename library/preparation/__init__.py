"""From a folder of pictures to a dataset: captions, tags, metadata."""
