"""Time, memory and energy per frame of engines."""
