"""The guard of ports: which frames leave a port, and which reach it, whatever policies say."""
