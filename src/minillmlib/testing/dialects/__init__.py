"""The dialects in which a script answers: how each wire writes an answer, and asks for one.

A new wire is one more file here and a row in `table`.
"""
