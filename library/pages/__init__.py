"""HTML pages that need no other file: what the dataset page and a run's report share."""
