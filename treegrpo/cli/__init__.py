"""The command line: the roof of the house, and the only part that imports every floor."""
