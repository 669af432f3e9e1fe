"""Chains deeper than an overlay should have layers: merged copies, the same files."""

import pytest

from treegrpo.sandboxes import Level, Sandbox, open_backend


@pytest.mark.parametrize("level", [Level.L2, Level.L1])
def test_seventy_generations_keep_their_files_modes_and_links(level: Level) -> None:
    with open_backend("process") as probed:
        if probed.probe().level < level:
            pytest.skip(f"the host gives no level {level.name}")
    with open_backend("process", level=level) as backend:
        from treegrpo.sandboxes import SandboxSpec

        at = backend.create(SandboxSpec(min_level=level))
        begin = "import os; open('a', 'w').write('0'); os.chmod('a', 0o640); os.symlink('a', 'l')"
        assert at.exec(begin + "; os.mkfifo('pipe'); os.mkdir('d'); open('gone', 'w')").ok
        for number in range(70):
            code = f"open('d/{number}', 'w').write('{number}'); open('a', 'w').write('{number}')"
            (fork,) = at.fork()
            assert isinstance(fork, Sandbox), fork
            at.close()
            at = fork
            assert at.exec(code).ok
            if number == 3:
                assert at.exec("os.remove('gone')").ok
        told = at.exec("oct(os.stat('a').st_mode), open('l').read(), len(os.listdir('d'))").value
        assert told == "('0o100640', '69', 70)"
        assert at.exec("os.path.exists('gone')").value == "False"
