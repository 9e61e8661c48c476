"""How the processes of a run hold what it trains: each all of it, or each a share."""
