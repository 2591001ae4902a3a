"""What is remembered: the only room that speaks Redis.

Every decision about a coupon is one Lua script on one shard's keys; the Python here packs its arguments and reads
its words back into the outcomes of `service.domain`.
"""
