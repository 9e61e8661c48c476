"""How much memory a run takes, without taking it."""
