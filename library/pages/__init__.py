"""HTML pages that are whole in one file: what the dataset page and a run's report share."""
