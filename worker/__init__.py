"""What is tidied: RQ jobs and the schedule that enqueues them.

Nothing here is a gate: the store decides by itself whether a coupon is valid and a campaign is open. The worker writes
down afterwards what already holds, in short steps that any process can take up where another has left off.
"""
