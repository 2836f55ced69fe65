"""Captions of as many photos as there are: read ahead, written row by row, gone on with after a crash."""
