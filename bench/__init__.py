"""What the images and the command line cost, measured side by side: `python -m bench [size] [wait] [plan] [push]`.

Nothing here passes or fails: the figures stand beside their targets, and people judge.
"""
