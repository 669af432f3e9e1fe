"""Code and maths in a live sandbox: programming tasks, and a Python that remembers."""

from treegrpo.envs.suite.code_exec.env import CodeExecEnv
from treegrpo.envs.suite.code_exec.level_env import CodeLevelsEnv, MathLevelsEnv
from treegrpo.envs.suite.code_exec.math_env import PythonMathEnv

__all__ = ["CodeExecEnv", "CodeLevelsEnv", "MathLevelsEnv", "PythonMathEnv"]
