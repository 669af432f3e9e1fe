"""The environments that ship: importing this module registers them."""

from __future__ import annotations

from treegrpo.envs.registry import register

register("treegrpo/SearchQA-v0", "treegrpo.envs.suite.search_qa.env:SearchQAEnv")
register("treegrpo/SearchQA-v1", "treegrpo.envs.suite.search_qa.page_env:SearchPagesEnv")
register("treegrpo/CodeExec-v0", "treegrpo.envs.suite.code_exec.env:CodeExecEnv")
register("treegrpo/CodeExec-v1", "treegrpo.envs.suite.code_exec.level_env:CodeLevelsEnv")
register("treegrpo/PythonMath-v0", "treegrpo.envs.suite.code_exec.math_env:PythonMathEnv")
register("treegrpo/PythonMath-v1", "treegrpo.envs.suite.code_exec.level_env:MathLevelsEnv")
register("treegrpo/SQL-v0", "treegrpo.envs.suite.sql.env:SQLEnv")
register("treegrpo/SQL-v1", "treegrpo.envs.suite.sql.level_env:SQLLevelsEnv")
register("treegrpo/Crafting-v0", "treegrpo.envs.suite.crafting.env:CraftingEnv")
register("treegrpo/WebShop-v0", "treegrpo.envs.suite.web_shop.env:WebShopEnv")
register("treegrpo/Service-v0", "treegrpo.envs.suite.service.env:make_service")
register("treegrpo/Notes-v0", "treegrpo.envs.suite.notes.env:NotesEnv")
register("treegrpo/Terminal-v0", "treegrpo.envs.suite.terminal.env:TerminalEnv")
register("treegrpo/Sokoban-v0", "treegrpo.envs.suite.games.sokoban:SokobanEnv")
register("treegrpo/Minesweeper-v0", "treegrpo.envs.suite.games.minesweeper:MinesweeperEnv")
register("treegrpo/Mastermind-v0", "treegrpo.envs.suite.games.mastermind:MastermindEnv")
register("treegrpo/WordGuess-v0", "treegrpo.envs.suite.games.word_guess:WordGuessEnv")
register("treegrpo/FrozenLake-v0", "treegrpo.envs.suite.games.frozen_lake:FrozenLakeEnv")
