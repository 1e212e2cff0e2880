"""Energy, power, clock rates and temperature during a measurement."""
