"""From the intermediate form to kernel tables. Pure: knows no kernel that is there, and no host."""
