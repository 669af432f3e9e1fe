"""Environments that were written elsewhere, as tool environments that can be forked."""
