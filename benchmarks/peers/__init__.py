"""The same network run by other tools, measured in one run with the engines of the toolkit."""
