"""Everything an environment is put to before it is trusted, as results one can print.

for result in run_checks("mine/Guess-v0"):
    print(result.name, result.outcome, result.found)
"""

from treegrpo.envs.checks.result import Counterexample, Outcome, Result
from treegrpo.envs.checks.run import run_checks

__all__ = ["Counterexample", "Outcome", "Result", "run_checks"]
