"""Why: what holds on paper must hold under the load that broke others, before the day, on any machine."""
