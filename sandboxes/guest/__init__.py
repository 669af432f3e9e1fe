"""What runs on the far side: launcher, supervisor and workers.

Standard library only and Python 3.9 or newer, since it is sent as source into containers whose
interpreter is not ours. Nothing here imports the host's side.
"""
