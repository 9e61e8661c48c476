"""What shows how a run is doing: trackers, validation, previews and the report."""
