"""What every service shares: records, ports, settings, the runner. Imports no vendor's client."""
