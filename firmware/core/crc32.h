/* CRC-32 (IEEE 802.3, reflected, as in zlib), four bits at a time. */
#ifndef WEAKCELL_CRC32_H
#define WEAKCELL_CRC32_H

#include <stdint.h>

#define WC_CRC_START 0xffffffffu

uint32_t wc_crc_byte(uint32_t crc, uint8_t byte);

/* The CRC of memory read one 32-bit word at a time, low byte first: what SRAM holds now, read once. */
uint32_t wc_crc_words(const volatile uint32_t *words, uint32_t count);

#endif
