"""Values: what the controller knows and decides, with no I/O and no clock."""
