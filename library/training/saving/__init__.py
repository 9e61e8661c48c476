"""What a run writes that outlives it: results, states, uploads; and the room for them."""
