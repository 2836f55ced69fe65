"""Ways to caption with one captioner's weights, and how they are timed beside one another; see ../peers.py."""
