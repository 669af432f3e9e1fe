"""Fork a live interpreter: each branch has its own memory, files and random state."""

from treegrpo.sandboxes import Sandbox, open_backend

with open_backend("process") as backend:
    root = backend.create()
    root.exec("import random; words = ['fork']; log = open('log.txt', 'w'); log.write('start ')")
    for name, branch in zip(("left", "right"), root.fork(2), strict=True):
        assert isinstance(branch, Sandbox), branch
        branch.exec(f"words.append({name!r}); log.write({name!r}); log.flush()")
        told = branch.exec("words, open('log.txt').read(), random.random()").value
        print(name, "has", told)
    print("root has", root.exec("words, open('log.txt').read(), random.random()").value)
