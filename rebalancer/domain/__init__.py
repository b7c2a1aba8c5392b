"""Values. No clock, no I/O, no async: whatever stands here can be compared, hashed and replayed."""
