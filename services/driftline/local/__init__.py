"""`driftline up`: the real servers and the services as processes on one machine."""
