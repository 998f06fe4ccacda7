"""The test service, once for each framework, as its users would write it."""
