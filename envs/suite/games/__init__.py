"""Games: steps that cannot be undone, ice that makes them go astray, secrets to deduce."""

from treegrpo.envs.suite.games.frozen_lake import FrozenLakeEnv
from treegrpo.envs.suite.games.mastermind import MastermindEnv
from treegrpo.envs.suite.games.minesweeper import MinesweeperEnv
from treegrpo.envs.suite.games.sokoban import SokobanEnv
from treegrpo.envs.suite.games.word_guess import WordGuessEnv

__all__ = ["FrozenLakeEnv", "MastermindEnv", "MinesweeperEnv", "SokobanEnv", "WordGuessEnv"]
