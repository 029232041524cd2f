"""Synthetic one-dimensional signals with classes: spoken words and heartbeats. No recording is part of them.

Words: each is two to four sounds. Vowels have the formants that Peterson and Barney measured (JASA 24, 1952). Consonants are bands
of noise. A voice has a pitch, a length of its vocal tract and a speed. Each of 40 frames has 10 cepstra of mel bands.

Heartbeats: each is a sum of Gaussian waves P, Q, R, S and T, as McSharry et al. model them (IEEE Trans. Biomed. Eng. 50, 2003).
The five classes are named as the AAMI's: normal, supraventricular, ventricular, fused and paced. Wander of the baseline, hum of
the mains and noise are added. A beat has 128 values, 125 in a second.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.fft import dct

Array = np.ndarray

# ── words ─────────────────────────────────────────────────────────────────────────────────────────────

RATE, FRAME, HOP, FRAMES, BANDS, CEPSTRA = 8000, 256, 128, 40, 20, 10
SAMPLES = HOP * (FRAMES - 1) + FRAME
FORMANTS = {
    "i": (270, 2290, 3010), "e": (530, 1840, 2480), "a": (730, 1090, 2440), "o": (570, 840, 2410), "u": (300, 870, 2240),
    "A": (660, 1720, 2410), "I": (390, 1990, 2550), "R": (490, 1350, 1690), "V": (640, 1190, 2390), "U": (440, 1020, 2240),
}  # fmt: skip
"""Mean formants (Hz) of men's vowels."""
NOISE = {"s": (3400, 700, 0.5), "f": (2200, 2500, 0.15), "k": (1500, 500, 0.4), "t": (2800, 900, 0.4)}
"""Consonants: centre and width (Hz) of a band of noise, and its loudness."""
WORDS = ("sia", "ko", "tAu", "fiu", "kRt", "soV", "ake", "teIs", "fUk", "uti")
WORD_CLASSES = (*WORDS, "another word", "silence")


def spoken_words(count: int, seed: int) -> tuple[Array, Array]:
    """Return features and classes of synthetic words.

    Args:
        count: number of words.
        seed: names them.

    Returns:
        Cepstra, float32 (count, 10, 40), and the index in `WORD_CLASSES`, int64 (count,).
    """
    rng = np.random.default_rng([seed, 1])
    classes = rng.integers(0, len(WORD_CLASSES), count)
    return np.stack([_features(_waveform(int(c), rng)) for c in classes]).astype(np.float32), classes


def _waveform(word: int, rng: np.random.Generator) -> Array:
    """Return 0.66 s of a word in noise."""
    background = rng.normal(0, 10 ** rng.uniform(-2.5, -1.0), SAMPLES)
    if word == len(WORDS) + 1:
        return background
    sounds = WORDS[word] if word < len(WORDS) else _another_word(rng)
    pitch, tract = rng.uniform(90, 240), rng.uniform(0.88, 1.18)
    pulses = np.sin(2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.linspace(1, -1, SAMPLES))) / RATE)
    voice, breath = np.maximum(pulses, 0.6) - 0.6, rng.normal(size=SAMPLES)
    lengths = rng.uniform(0.7, 1.4, len(sounds))
    edges = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()
    start, length = rng.uniform(0.0, 0.25), rng.uniform(0.55, 0.75)
    frequencies = np.fft.rfftfreq(FRAME, 1 / RATE)
    wave = np.zeros(SAMPLES)
    window = np.hanning(FRAME)
    for frame in range(FRAMES):
        place = (frame / FRAMES - start) / length
        if not 0 <= place < 1:
            continue
        sound = sounds[min(int(np.searchsorted(edges, place, "right")) - 1, len(sounds) - 1)]
        part = slice(frame * HOP, frame * HOP + FRAME)
        wave[part] += _sound(sound, frequencies, tract, voice[part] * window, breath[part] * window)
    return wave / max(float(np.abs(wave).max()), 1e-9) + background


def _another_word(rng: np.random.Generator) -> str:
    """Return sounds that are no word of the list."""
    while True:
        sounds = "".join(rng.choice(list(NOISE if i % 2 == 0 else FORMANTS)) for i in range(rng.integers(2, 5)))
        if sounds not in WORDS:
            return sounds


def _sound(sound: str, frequencies: Array, tract: float, voice: Array, breath: Array) -> Array:
    """Return a frame of one sound."""
    if sound in NOISE:
        centre, width, loudness = NOISE[sound]
        shape = loudness * np.exp(-(((frequencies - centre) / width) ** 2))
        return np.fft.irfft(np.fft.rfft(breath) * shape, FRAME)
    peaks = (2.0**-i * np.exp(-(((frequencies - tract * f) / (80 + 40 * i)) ** 2)) for i, f in enumerate(FORMANTS[sound]))
    return np.fft.irfft(np.fft.rfft(10 * voice + 0.05 * breath) * sum(peaks), FRAME)


def _features(wave: Array) -> Array:
    """Return the cepstra (10, 40) of a wave, each about in -4 … 4."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP] * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = np.log(power @ _mel_bands().T + 1e-3)
    return dct(bands, norm="ortho")[:, :CEPSTRA].T / 4


@cache
def _mel_bands() -> Array:
    """Return triangles (20, 129) on the mel scale from 60 to 4000 Hz."""
    ends = 2595 * np.log10(1 + np.array([60, RATE / 2]) / 700)
    points = 700 * (10 ** (np.linspace(*ends, BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(FRAME, 1 / RATE)
    up = (frequencies - points[:-2, None]) / np.diff(points)[:-1, None]
    down = (points[2:, None] - frequencies) / np.diff(points)[1:, None]
    return np.maximum(0, np.minimum(up, down))


# ── heartbeats ────────────────────────────────────────────────────────────────────────────────────────

BEAT, BEAT_RATE = 128, 125
BEAT_CLASSES = ("normal", "supraventricular", "ventricular", "fused", "paced")
NORMAL = ((0.15, -0.18, 0.022), (-0.12, -0.035, 0.010), (1.1, 0.0, 0.012), (-0.25, 0.035, 0.012), (0.30, 0.26, 0.045))
EARLY = ((-0.08, -0.12, 0.018), (-0.12, -0.035, 0.010), (1.0, 0.0, 0.011), (-0.25, 0.035, 0.012), (0.25, 0.24, 0.045))
WIDE = ((0.0, -0.18, 0.022), (-0.10, -0.080, 0.020), (1.2, 0.0, 0.040), (-0.50, 0.090, 0.030), (-0.35, 0.30, 0.060))
PACED = ((1.0, -0.060, 0.004), (-0.20, -0.035, 0.015), (0.8, 0.010, 0.035), (-0.60, 0.080, 0.030), (0.35, 0.30, 0.060))
"""Height (mV), place (s, of the R wave 0) and width (s) of the five waves."""


def heartbeats(count: int, seed: int) -> tuple[Array, Array]:
    """Return synthetic heartbeats of one lead and their classes.

    Args:
        count: number of beats.
        seed: names them.

    Returns:
        Beats in mV, float32 (count, 1, 128), and the index in `BEAT_CLASSES`, int64 (count,).
    """
    rng = np.random.default_rng([seed, 2])
    classes = rng.integers(0, len(BEAT_CLASSES), count)
    share = np.where(classes == 3, rng.uniform(0.3, 0.7, count), classes == 2)[:, None]  # of the ventricular wave
    waves = np.array([NORMAL, EARLY, NORMAL, NORMAL, PACED])[classes]
    beats = (1 - share) * _sum_of_waves(waves, rng) + share * _sum_of_waves(np.broadcast_to(np.array(WIDE), waves.shape), rng)
    t = np.arange(BEAT) / BEAT_RATE
    turns = rng.uniform(0, 2 * np.pi, (2, count, 1))
    beats = beats + rng.uniform(0, 0.3, (count, 1)) * np.sin(2 * np.pi * rng.uniform(0.15, 0.5, (count, 1)) * t + turns[0])
    beats = beats + rng.uniform(0, 0.06, (count, 1)) * np.sin(2 * np.pi * 50 * t + turns[1])
    return (beats + rng.normal(0, 0.08, beats.shape))[:, None].astype(np.float32), classes


def _sum_of_waves(waves: Array, rng: np.random.Generator) -> Array:
    """Return sums (n, 128) of the five waves (n, 5, 3), each a little moved, higher and wider in every beat."""
    count = len(waves)
    height = waves[..., 0] * rng.normal(1, 0.2, (count, 5)) * rng.uniform(0.7, 1.3, (count, 1))
    place = waves[..., 1] * rng.normal(1, 0.08, (count, 1)) + rng.normal(0, 0.006, (count, 5)) + rng.normal(0, 0.02, (count, 1))
    width = waves[..., 2] * rng.normal(1, 0.12, (count, 5)).clip(0.6)
    t = np.arange(BEAT) / BEAT_RATE - 0.4
    return (height[..., None] * np.exp(-0.5 * ((t - place[..., None]) / width[..., None]) ** 2)).sum(1)
