"""Export of trained generators to verified engines."""
