/* Frames: COBS(content, CRC-32 little endian), 00. The decoder takes bytes one by one and starts again at every 00. */
#ifndef WEAKCELL_FRAME_H
#define WEAKCELL_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#define WC_CONTENT 300u              /* longest content: header, status, record, page number, 256 bytes */
#define WC_RAW (WC_CONTENT + 4u)     /* the same with its CRC */

/* Bits of the CRC that are checked: all. A test builds the core with only 8 to see that it then accepts damaged frames. */
#ifndef WC_CHECK
#define WC_CHECK 0xffffffffu
#endif

typedef struct {
    uint8_t bytes[WC_RAW];
    uint16_t length;    /* decoded so far */
    uint8_t left;       /* bytes of this COBS group still to come */
    uint8_t zero;       /* a zero follows this group */
    uint8_t bad;        /* this frame is dropped; wait for 00 */
    uint8_t begun;      /* a byte of this frame has arrived */
    struct {
        uint32_t good, damaged, oversize;
    } counters;         /* numbers of frames */
} wc_decoder;

/* Take one byte. Returns the content's length if the byte ends a frame whose CRC is right, else -1. */
int wc_decode(wc_decoder *decoder, uint8_t byte);

/* Whether the last content still matches its CRC, which lies behind it until the next byte is taken. */
bool wc_content_intact(const wc_decoder *decoder, uint16_t content);

/* Drop the frame in progress. */
void wc_reset_decoder(wc_decoder *decoder);

/* Send content as a frame with both delimiters. `content` must have room for 4 more bytes. */
void wc_encode(uint8_t *content, uint16_t length, void (*put)(uint8_t));

#endif
