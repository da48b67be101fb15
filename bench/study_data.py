"""The table of the study benchmark: 1 500 rows, 20 numbers and 3 words a row, a class of three that depends on them
through a small random network, a tenth of the labels wrong.

    python3 bench/study_data.py study.csv
"""
import sys

import numpy as np

ROWS, NUMBERS, WORDS, CLASSES = 1500, 20, 3, 3


def main(path):
    r = np.random.RandomState(7)
    x = r.randn(ROWS, NUMBERS) @ (np.eye(NUMBERS) + 0.3 * r.randn(NUMBERS, NUMBERS))
    words = r.randint(0, 4, (ROWS, WORDS))
    hidden = np.tanh(x @ r.randn(NUMBERS, 12) / np.sqrt(NUMBERS) + r.randn(4, WORDS, 12)[words, np.arange(WORDS)].sum(1))
    y = np.argmax(hidden @ r.randn(12, CLASSES) + 0.3 * r.randn(ROWS, CLASSES), 1)
    wrong = r.rand(ROWS) < 0.1
    y[wrong] = r.randint(0, CLASSES, wrong.sum())
    with open(path, "w") as f:
        f.write(",".join([f"x{i}" for i in range(NUMBERS)] + [f"word{i}" for i in range(WORDS)] + ["kind"]) + "\n")
        for i in range(ROWS):
            cells = [f"{v:.5f}" for v in x[i]] + ["north south east west".split()[w] for w in words[i]]
            f.write(",".join(cells + ["abc"[y[i]]]) + "\n")


main(sys.argv[1])
