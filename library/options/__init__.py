"""The border between a user's words and the program: typed, frozen option sections and their parser. No
torch here.
"""
