"""What runs inside namespace workspaces: plain scripts, standard library only, started by path."""
