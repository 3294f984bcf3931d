"""What may pass at a port. Knows nothing of hosts, tunnels or playgrounds."""
