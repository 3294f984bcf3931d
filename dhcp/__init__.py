"""Address delivery at the port: DHCPv4 and router advertisements. Knows nothing of where addresses come from."""
