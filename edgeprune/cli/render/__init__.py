"""Turns results and events into what a person or a program reads."""
