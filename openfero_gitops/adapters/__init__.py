"""The outside world, one library each, its errors translated where they arise."""
