"""How fast a run goes: the time of its parts, and a watch that says when it crawls, and why."""
