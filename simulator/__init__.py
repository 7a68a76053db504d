"""A sky to try noctule on: objects become alerts, nights pass, a telescope answers."""
