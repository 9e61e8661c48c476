"""Work on network files: merging, resizing, extraction, checks. No model is needed unless a kind's change
depends on the weights it changes.
"""
