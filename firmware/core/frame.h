/* Frames: COBS(content, CRC-32 little endian) 00. The decoder takes bytes in any portions and starts again at every 00. */
#ifndef WEAKCELL_FRAME_H
#define WEAKCELL_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#define WC_CONTENT 286u              /* the longest content: header, status, record of a pulse, page number, 256 bytes */
#define WC_RAW (WC_CONTENT + 4u)     /* with its CRC */

/* Bits of the CRC that are checked: all. A test builds the core with 8 of them, to see that it can tell the difference. */
#ifndef WC_CHECK
#define WC_CHECK 0xffffffffu
#endif

typedef struct {
    uint8_t bytes[WC_RAW];
    uint16_t length;    /* decoded so far */
    uint8_t left;       /* bytes of the present COBS group still to come */
    uint8_t zero;       /* a zero follows the present group */
    uint8_t bad;        /* this frame is lost; wait for 00 */
    uint8_t begun;
    uint32_t good, damaged, oversize; /* counters of frames */
} wc_decoder;

/* Take one byte; the length of the content if a frame ended with it and its CRC is right, else -1. */
int wc_decode(wc_decoder *decoder, uint8_t byte);

/* Is the content that ended last still what came? Its CRC lies behind it until the next byte is taken. */
bool wc_whole(const wc_decoder *decoder, uint16_t content);

/* Forget a frame that has begun. */
void wc_restart(wc_decoder *decoder);

/* Send content as a frame, both delimiters included. content has room for 4 more bytes. */
void wc_encode(uint8_t *content, uint16_t length, void (*put)(uint8_t));

#endif
