"""Is it enough to keep the sign bits of an 8-bit network in reliable cells?

`place` moves one bit position of every weight to another memory. The sign bit of two's complement changes a weight most, so it
costs one eighth of the cells to protect it. SECDED costs one eighth, too. It corrects one error in a word of 64 bits and detects
two. What a detected word reads as decides: zeros (`erase`, the default) cost more accuracy here than the two wrong bits (`raw`).
"""

import weakcell

BER = 0.003


def main() -> dict[str, float]:
    """Return the mean accuracy of each way to protect the weights."""
    unprotected = f"uniform:ber={BER}"
    cases = {
        "unprotected": {"memory": unprotected},
        "sign bit reliable": {"memory": unprotected, "place": {"*@7": "uniform:ber=0"}},
        "SECDED, erase": {"memory": f"secded+{unprotected}"},
        "SECDED, raw": {"memory": f"secded[policy=raw]+{unprotected}"},
    }
    accuracies = {}
    for name, settings in cases.items():
        result = weakcell.emulate("digits-qnn", trials=8, **settings)
        accuracies[name] = float(result.summary["mean"][0])
        print(f"{name:18s} {accuracies[name]:.2%}")
    return accuracies


if __name__ == "__main__":
    main()
