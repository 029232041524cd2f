#include "pattern.h"

uint32_t wc_pattern(uint8_t pattern, uint32_t seed, uint32_t index)
{
    uint32_t x;
    if (pattern & WC_INVERTED)
        return ~wc_pattern(pattern & (uint8_t)~WC_INVERTED, seed, index);
    switch (pattern) {
    case WC_ZEROS:
        return 0;
    case WC_ONES:
        return 0xffffffffu;
    case WC_CHECKERBOARD:
        return index & 1 ? 0xaaaaaaaau : 0x55555555u;
    case WC_ADDRESS:
        return index * 4u;
    default: /* a 32-bit finalizer with good avalanche */
        x = index * 0x9e3779b9u ^ seed;
        x = (x ^ x >> 16) * 0x85ebca6bu;
        x = (x ^ x >> 13) * 0xc2b2ae35u;
        return x ^ x >> 16;
    }
}
