"""Who may pass: requests gather into batches, saturation is measured, and the breaker shared by all replicas decides.

Above the store, which it asks and tells; below the API, which only reads what was decided here.
"""
