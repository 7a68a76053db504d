"""A sky to try noctule on: alerts made from objects, nights, and a telescope that answers requests."""
