"""What is true about campaigns and coupons, in plain values and pure functions.

Nothing in this room performs input or output or looks at a clock: time is always a parameter, in integer
milliseconds since the epoch, so every rule can be tested by stating it.
"""
