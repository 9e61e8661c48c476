"""What shows how a run is doing: trackers, validation, previews, the ledger, its pages."""
