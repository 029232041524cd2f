#include "frame.h"
#include "crc32.h"

void wc_reset_decoder(wc_decoder *d)
{
    d->length = 0;
    d->left = d->zero = d->bad = d->begun = 0;
}

bool wc_content_intact(const wc_decoder *d, uint16_t content)
{
    uint32_t crc = WC_CRC_START, received = 0;
    for (uint16_t i = 0; i < content; i++)
        crc = wc_crc_byte(crc, d->bytes[i]);
    for (int i = 3; i >= 0; i--)
        received = received << 8 | d->bytes[content + i];
    return ((received ^ ~crc) & WC_CHECK) == 0;
}

static void store_byte(wc_decoder *d, uint8_t byte)
{
    if (d->length == WC_RAW) {
        if (!d->bad)
            d->counters.oversize++;
        d->bad = 1;
    } else {
        d->bytes[d->length++] = byte;
    }
}

static int end_frame(wc_decoder *d)
{
    int length = -1;
    if (d->begun) {
        if (!d->bad && d->left == 0 && d->length > 4 && wc_content_intact(d, (uint16_t)(d->length - 4)))
            length = d->length - 4;
        if (length >= 0)
            d->counters.good++;
        else
            d->counters.damaged++;
    }
    wc_reset_decoder(d);
    return length;
}

int wc_decode(wc_decoder *d, uint8_t byte)
{
    if (byte == 0)
        return end_frame(d);
    d->begun = 1;
    if (d->bad)
        return -1;
    if (d->left == 0) {
        if (d->zero)
            store_byte(d, 0);
        d->left = (uint8_t)(byte - 1);
        d->zero = byte != 255;
    } else {
        store_byte(d, byte);
        d->left--;
    }
    return -1;
}

void wc_encode(uint8_t *content, uint16_t length, void (*put)(uint8_t))
{
    uint32_t crc = WC_CRC_START;
    for (uint16_t i = 0; i < length; i++)
        crc = wc_crc_byte(crc, content[i]);
    crc = ~crc;
    for (int i = 0; i < 4; i++, crc >>= 8)
        content[length++] = (uint8_t)crc;
    put(0);
    uint16_t at = 0;
    while (at <= length) {
        uint16_t run = 0;
        while (at + run < length && content[at + run] != 0 && run < 254)
            run++;
        put((uint8_t)(run + 1));
        for (uint16_t i = 0; i < run; i++)
            put(content[at + i]);
        at = (uint16_t)(at + run);
        if (run < 254)
            at++;               /* the zero, or one past the end */
        else if (at == length)
            break;              /* a full group at the very end says nothing about a zero */
    }
    put(0);
}
