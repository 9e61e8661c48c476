"""Networks that are trained beside a frozen model, one file a kind."""
