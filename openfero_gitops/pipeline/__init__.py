"""Pure functions from value to value: parse, validate, match, decide, render, observe."""
