"""`make torture`: kills, mutated files, hostile texts and full disks, through the real commands."""
