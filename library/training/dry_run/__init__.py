"""`--dry_run`: all that a run would do, without doing it."""
