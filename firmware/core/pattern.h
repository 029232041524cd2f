/* Generated patterns: a word depends only on the pattern, the seed and the word's index in the arena. */
#ifndef WEAKCELL_PATTERN_H
#define WEAKCELL_PATTERN_H

#include <stdint.h>

enum { WC_ZEROS, WC_ONES, WC_CHECKERBOARD, WC_ADDRESS, WC_RANDOM, WC_PATTERNS };
enum { WC_INVERTED = 8 }; /* added to a pattern: every bit inverted */

/* Word `index` of a pattern. The host computes the same (pattern_words in link/protocol.py). */
uint32_t wc_pattern(uint8_t pattern, uint32_t seed, uint32_t index);

#endif
