"""A queue of trainings in a folder of plain files. See docs/queue.md."""
