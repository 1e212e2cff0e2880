"""Energy, power, clocks and temperature while something runs."""
