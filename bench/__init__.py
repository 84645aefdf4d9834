"""The cost of images and of the command line: `python -m bench [size] [wait] [plan] [push] [pipeline] [change]`.

Nothing here passes or fails: the report prints each figure next to its target.
"""
