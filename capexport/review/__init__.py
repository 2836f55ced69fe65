"""Captions of many photos looked through by a person, in a browser on this machine, and saved back."""
