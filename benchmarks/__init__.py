"""What an engine costs and what it gives, measured."""
