"""How it is overloaded on purpose: a stampede, a pause, a store that hangs or dies, each held against its bound.

Everything is run in earnest, in processes of its own, and looked at from outside only.
"""
