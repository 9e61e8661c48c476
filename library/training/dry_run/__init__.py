"""`--dry_run`: tries all that a run would do, and leaves nothing behind."""
