"""Address delivery at the port: DHCPv4, DHCPv6, router advertisements. Knows nothing of where addresses come from."""
