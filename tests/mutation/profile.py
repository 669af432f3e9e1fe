"""The Hypothesis profile `mutants`: a sixth of the examples, the same ones for every mutant."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mutants",
    max_examples=16,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
