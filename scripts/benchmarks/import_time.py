"""How long `import minilm` takes beside `import numpy`, each in a fresh process.

    python scripts/benchmarks/import_time.py

minilm reads a room when a name of it is first asked for, so the second row asks for some.
"""

import statistics
import subprocess
import sys
import time

STATEMENTS = ["import minilm", "import minilm; minilm.Tensor, minilm.GPT, minilm.AdamW"]


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    for statement in STATEMENTS:
        pairs = [(seconds(statement), seconds("import numpy")) for _ in range(15)]
        ratio = statistics.median(ours / numpys for ours, numpys in pairs)
        print(f"{ratio:6.2f} x import numpy: {statement}")


if __name__ == "__main__":
    main()
