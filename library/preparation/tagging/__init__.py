"""Taggers: ONNX models that give each of thousands of tags a probability.

`sources` finds a tagger's files, `tables` reads its table of tags, `inputs` makes what it sees of pictures,
`model` runs it, and `choosing` turns probabilities into a text.
"""
