"""HTTP to values and back."""
