"""Why: "fast" is a ratio that anybody can measure again: Tidegate beside what others would build, on two cores.

The baselines do the same work under the same durability and are written as their communities would write them.
"""
