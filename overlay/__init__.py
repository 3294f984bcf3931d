"""Frames from port to port: pools, MACs, MTU, tunnels, the host state that is wanted and the one that is there.

Knows nothing of playgrounds, policies or DHCP.
"""
