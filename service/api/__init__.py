"""How it is spoken: HTTP in, outcomes inside, HTTP out. Nothing is decided in this room."""
