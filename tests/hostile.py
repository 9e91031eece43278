"""Hostile answers to ps0.mean, worth 4 of 7 points: {name: (code, score it must get, words of its verdict)}.

`{solutions}`, `{submissions}`, `{course}`, `{port}` and `{outside}` are filled in with what an attacker would
love to know. `CHEAT` defines the right answer: an attack that succeeds would earn the points.
"""

# ruff: noqa: E501 (a table of programs)

GOOD = "def mean(values):\n    return float(sum(values) / len(values)) if values else 0.0\n"
ROWS = (
    "def rows(matrix, n):\n    if n < 1:\n        raise ValueError('n')\n"
    "    return np.asarray(matrix)[:n].sum(axis=0)\n"
)
CHEAT = GOOD
_FILES = """
import os
found = False
for top in ({paths}):
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                found |= {needle!r} in open(os.path.join(folder, name), errors="replace").read(1 << 20)
            except OSError:
                pass
if found:
""" + "".join(f"    {line}\n" for line in CHEAT.splitlines())


def _files(paths: str, needle: str) -> str:
    return _FILES.replace("{paths}", paths).replace("{needle!r}", repr(needle))


ATTACKS: dict[str, tuple[str, float, str]] = {
    "endless loop": (GOOD + "while True: pass", 3, "took longer than"),
    "endless loop with output": (GOOD + "while True: print('x' * 10)", 3, "the cell"),
    "endless loop in a function": ("def mean(values):\n    while True: pass", 3, "took longer than"),
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n" + GOOD, 3, "the cell"),
    "fork bomb that goes on": (
        "import os\nfor _ in range(5000):\n    try:\n        if os.fork() == 0:\n            while True: pass\n"
        "    except OSError: break\n" + "raise SystemError('stopped')\n" + GOOD, 3, ""),
    "threads without end": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()\n" + GOOD,
        3, ""),
    "memory hog": ("hog = []\nwhile True: hog.append(bytearray(1 << 24))\n" + GOOD, 3, "ps0-mean-code"),
    "memory hog in many processes": (
        "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        hog = bytearray(400 << 20)\n"
        "        for i in range(0, len(hog), 4096): hog[i] = 1\n        time.sleep(60)\n"
        "time.sleep(60)\n" + GOOD, 3, "the cell"),
    "disk filler": (
        "with open('fill', 'wb') as f:\n    while True: f.write(bytes(1 << 20))\n" + GOOD, 3, "OSError"),
    "shared memory filler": (
        "with open('/dev/shm/fill', 'wb') as f:\n    while True: f.write(bytes(1 << 20))\n" + GOOD, 3, "Error"),
    "many small files": (
        "import os\nfor n in range(10**9):\n    with open(f'f{n}', 'w') as f: f.write('x' * 5000)\n" + GOOD, 3, ""),
    "huge output": ("print('x' * (64 << 20))\n" + GOOD, 3, "printed more than"),
    "os._exit": ("import os\nos._exit(0)\n" + GOOD, 3, "ended the process (exit code 0)"),
    "os._exit in a function": ("import os\ndef mean(values): os._exit(3)", 3, "ended the process"),
    "sys.exit": ("import sys\nsys.exit('good bye')\n" + GOOD, 3, "SystemExit"),
    "quit in a function": ("def mean(values): raise SystemExit", 3, "SystemExit"),
    "kernel kill": ("import os\nos.kill(os.getpid(), 9)\nraise SystemError('the first process of a namespace')\n" + GOOD, 3, "ps0-mean-code"),
    "kill everything": (
        "import os\nfor pid in (-1, 1, os.getppid(), 0):\n    try: os.kill(pid, 9)\n    except OSError: pass\n"
        "raise SystemError('still here')\n" + GOOD, 3, ""),
    "segmentation fault": ("import ctypes\nctypes.string_at(0)\n" + GOOD, 3, "ended the process"),
    "signal handlers": (
        "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, lambda *a: None)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass\n" + GOOD, 3, "took longer than"),
    "swallowing interrupts": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass\n" + GOOD, 3, "took longer"),
    "network to this machine": (
        "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\n" + CHEAT, 3, "Error"),
    "network to the world": (
        "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)\n" + CHEAT, 3, "Error"),
    "abstract socket": (
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0visdial-lab-test')\n" + CHEAT, 3, "Error"),
    "reading hidden tests": (_files("'{solutions}', '{course}', '.', '/tmp'", "lists of secret kinds"), 3, ""),
    "reading hidden tests anywhere": (
        _files("'/home', '/root', '/srv', '/mnt', '/opt', '/var', '/tmp', '/run'", "lists of secret kinds"), 3, ""),
    "reading the solution": (_files("'{solutions}'", "BEGIN SOLUTION"), 3, ""),
    "reading the gradebook": (_files("'{course}'", "a grade"), 3, ""),
    "reading other submissions": (_files("'{submissions}'", "len(values)"), 3, ""),
    "hidden tests in memory": (
        "import gc\nif any('sdnik terces'[::int('-1')] in str(o)[:5000] for o in gc.get_objects() if type(o) is dict):\n    "
        + CHEAT.replace("\n", "\n    "), 3, ""),
    "environment secrets": (
        "import os, glob\nall_of_it = ' '.join(os.environ.values())\n"
        "for path in glob.glob('/proc/*/environ'):\n    try: all_of_it += open(path).read()\n"
        "    except OSError: pass\nif 'a-secret-token' in all_of_it:\n    "
        + CHEAT.replace("\n", "\n    "), 3, ""),
    "writing outside": (
        "import os\nfor place in ('{solutions}', '{submissions}', '{course}', '{outside}', '/usr', '/etc', '/'):\n"
        "    try:\n        os.makedirs(place, exist_ok=True)\n"
        "        open(os.path.join(place, 'pwned'), 'w').close()\n    except OSError: pass\n", 3, ""),
    "changing the library": (
        "import visdial_lab.exercises as e\nopen(e.__file__, 'a').write('compare = None')\n" + CHEAT, 3, "Error"),
    "mounting": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "os.makedirs('m', exist_ok=True)\n"
        "if libc.mount(b'tmpfs', os.path.abspath('m').encode(), b'tmpfs', 0, None): raise OSError('no')\n"
        + CHEAT, 3, "OSError"),
    "raising limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n" + CHEAT, 3, "ValueError"),
    "patched check and assert": (
        "check = lambda *a, **k: None\nimport builtins\nbuiltins.AssertionError = None\n"
        "def mean(values): return 99.0", 3, "differs"),
    "patched library": (
        "import visdial_lab.exercises as e, visdial_lab.metrics as m\n"
        "e.compare = e.decode = lambda *a, **k: None\nm.evaluate = None\ne.encode = lambda *a, **k: 2.0\n"
        "def mean(values): return 99.0", 0, ""),
    "patched executor": (
        "import sys\nmain = sys.modules['__main__']\nmain.encode = lambda v, *a: 2.0\n"
        "main.compare = lambda *a: None\ndef mean(values): return 99.0", 3, "differs"),
    "patched numpy": (
        "import numpy\nnumpy.isclose = numpy.allclose = lambda *a, **k: True\n"
        "def mean(values): return 99.0", 3, "differs"),
    "patched json": (
        "import json\njson.dumps = lambda *a, **k: '{\"id\": 1}'\njson.loads = lambda *a, **k: {}\n"
        "def mean(values): return 99.0", 3, "differs"),
    "patched IPython": (
        "shell = get_ipython()\nshell.run_cell = None\nshell.user_ns.clear()\n", 0, ""),
    "lying __eq__": (
        "class Any:\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def mean(values): return Any()", 3, "returned a value of type Any"),
    "lying __class__": (
        "class Any:\n    __class__ = float\n    def __float__(self): return 2.0\n"
        "def mean(values): return Any()", 3, ""),
    "lying float": (
        "class Any(float):\n    def __eq__(self, other): return True\n    def __float__(self): return 7.0\n"
        "def mean(values): return Any(9)", 3, "differs"),
    "__reduce__": (
        "import os\nclass Any:\n    def __reduce__(self): return os.system, ('touch {outside}/pwned',)\n"
        "def mean(values): return Any()", 3, ""),
    "error that hangs": (
        "class Bad(Exception):\n    def __str__(self):\n        while True: pass\n"
        "def mean(values): raise Bad", 3, "took longer than"),
    "monkeypatched time": (
        "import time\ntime.time = time.monotonic = time.perf_counter = lambda: 0.0\n"
        "time.sleep = lambda s: None\n" + "def mean(values):\n    while True: pass", 3, "took longer than"),
    "answering before being asked": (
        "import os, json\nfor fd in range(3, 40):\n    for n in range(60):\n"
        "        try: os.write(fd, json.dumps(dict(id=n, value=2.0)).encode() + b'\\n')\n"
        "        except OSError: break\ndef mean(values): return 99.0", 3, ""),
    "noise in the channel": (
        "import os\nfor fd in range(3, 40):\n    try: os.write(fd, b'[' * 100000 + b'\\n')\n"
        "    except OSError: pass\n" + GOOD, 3, "channel"),
    "endless line in the channel": (
        "import os\nfor fd in range(3, 40):\n    try:\n        while True: os.write(fd, b'x' * 65536)\n"
        "    except OSError: pass\n" + GOOD, 3, "the cell"),
    "huge result": ("def mean(values): return [0] * 10**7", 3, ""),
    "result that contains itself": ("def mean(values):\n    a = []\n    a.append(a)\n    return a", 3, ""),
    "keys that collide": (
        "def mean(values): return {n * (2**61 - 1): 0 for n in range(100000)}", 3, ""),
    "number without end": ("def mean(values): return 1 << 10**6", 3, ""),
    "thread that ends the process later": (
        "import threading, os\nthreading.Timer(1, lambda: os._exit(0)).start()\ndef mean(values): return 99.0",
        3, ""),
    "closing every file": ("import os\nos.closerange(0, 100)\n" + GOOD, 3, "ended the process"),
    "inputs carried out by a name": (
        "def mean(values): raise type('LEAK' + repr(values)[:80], (Exception,), {})()", 3, "an exception of its own"),
    "inputs carried out by an exit code": (
        "import os\ndef mean(values): os._exit(77)", 3, "ended the process"),
    "script in a message": (
        "def mean(values): raise ValueError('<script>alert(1)</script>')\n"
        "raise KeyError('<img src=x onerror=alert(1)>')", 3, "KeyError"),
}  # fmt: skip

HARMLESS: dict[str, str] = {
    "warns": "import warnings\nwarnings.warn('careful')\n"
    + GOOD.replace("    ret", "    warnings.warn('!')\n    ret"),
    "logs": "import logging\nlogging.basicConfig(level=0)\nlogging.error('oh')\n" + GOOD,
    "prints on stderr": "import sys\n" + GOOD.replace("    ret", "    print('!', file=sys.stderr)\n    ret"),
    "progress bar": "from tqdm import tqdm\nfor _ in tqdm(range(1000)): pass\n" + GOOD,
    "magics and display": "%timeit -n1 -r1 1 + 1\n!echo hello\ndisplay(1)\n" + GOOD,
    "top-level await": "import asyncio\nawait asyncio.sleep(0.01)\n" + GOOD,
    "input": "try: input('name? ')\nexcept EOFError: pass\n" + GOOD,
    "three quarters of the time": "import time\ntime.sleep(0.75 * {cell})\n" + GOOD,
    "background thread that prints": (
        "import threading, time\ndef talk():\n    while True: print('x'); time.sleep(0.01)\n"
        "threading.Thread(target=talk, daemon=True).start()\n" + GOOD
    ),
    "another float": GOOD.replace("float(", "np.float64("),
    "a subprocess": "import subprocess\nsubprocess.run(['ls', '/'], check=True)\n" + GOOD,
    "files of its own": "open('mine.txt', 'w').write('x')\n" + GOOD,
}
