"""The demonstration: a story played with the real controller."""
