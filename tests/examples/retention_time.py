"""How long can DRAM go without refresh?

Longer refresh intervals save energy, but more cells lose their charge. The temperature of the chip matters as much.
"""

import weakcell


def main() -> dict[str, weakcell.Emulation]:
    """Return the accuracies over the refresh interval, at two temperatures."""
    results = {}
    for temperature in (20, 70):
        memory = {"name": "dram", "vendor": "B", "temperature": temperature}
        results[f"{temperature} °C"] = weakcell.emulate(
            "digits-qnn", memory=memory, sweep={"refresh_interval": [0.064, 0.512, 2.048]}, trials=4, images=200
        )
        print(f"{temperature} °C", results[f"{temperature} °C"])
    return results


if __name__ == "__main__":
    main()
