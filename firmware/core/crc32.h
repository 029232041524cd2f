/* CRC-32 (IEEE 802.3, reflected, as in zlib), four bits at a time. */
#ifndef WEAKCELL_CRC32_H
#define WEAKCELL_CRC32_H

#include <stdint.h>

#define WC_CRC_START 0xffffffffu

/* Continue a CRC with one byte. Start with WC_CRC_START; the CRC is the complement of the last value. */
uint32_t wc_crc_byte(uint32_t crc, uint8_t byte);

/* CRC of `count` 32-bit words. Each word is read from memory once, low byte first. */
uint32_t wc_crc_words(const volatile uint32_t *words, uint32_t count);

#endif
