#include "arena.h"
#include "crc32.h"
#include "pattern.h"
#include "reply.h"

static volatile uint32_t *page_address(const wc_core *core, uint32_t number)
{
    return core->board->arena + number * (WC_PAGE / 4);
}

void wc_write_page(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t number = wc_get_le(body, 2);
    volatile uint32_t *to = page_address(core, number);
    for (uint32_t i = 0; i < WC_PAGE / 4; i++)
        to[i] = wc_get_le(body + 2 + 4 * i, 4);
    wc_append_le(reply, number, 2);
}

void wc_read_page(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t number = wc_get_le(body, 2);
    wc_append_le(reply, number, 2);
    volatile uint32_t *from = page_address(core, number);
    for (uint32_t i = 0; i < WC_PAGE / 4; i++)
        wc_append_le(reply, from[i], 4);
}

void wc_page_crcs(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t first = wc_get_le(body, 2), count = body[2];
    wc_append_le(reply, first, 2);
    for (uint32_t i = 0; i < count; i++) {
        core->board->keep_alive();
        wc_append_le(reply, wc_crc_words(page_address(core, first + i), WC_PAGE / 4), 4);
    }
}

void wc_fill(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t first = wc_get_le(body, 2), count = wc_get_le(body + 2, 2), seed = wc_get_le(body + 5, 4);
    uint32_t end = (first + count) * (WC_PAGE / 4);
    (void)reply;
    for (uint32_t i = first * (WC_PAGE / 4); i < end; i++) {
        core->board->arena[i] = wc_pattern(body[4], seed, i);
        if (i % 64 == 0)
            core->board->keep_alive();
    }
}

/* Compare with a pattern from cell `start` on: reply with the number of differing cells and the first sixty of them. */
void wc_compare(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t first = wc_get_le(body, 2), count = wc_get_le(body + 2, 2), seed = wc_get_le(body + 5, 4), start = wc_get_le(body + 9, 4);
    uint32_t total = 0, listed = 0, end = (first + count) * (WC_PAGE / 4);
    uint16_t head = reply->length;
    reply->length += 5;
    for (uint32_t i = first * (WC_PAGE / 4); i < end; i++) {
        uint32_t differs = core->board->arena[i] ^ wc_pattern(body[4], seed, i);
        if (i < start / 32)
            differs = 0;
        else if (i == start / 32)
            differs &= 0xffffffffu << (start % 32);
        for (uint32_t bit = 0; differs != 0; bit++, differs >>= 1) {
            if (!(differs & 1))
                continue;
            total++;
            if (listed < WC_MAX_FLIPS) {
                wc_append_le(reply, i * 32 + bit, 4);
                listed++;
            }
        }
        if (i % 64 == 0)
            core->board->keep_alive();
    }
    uint16_t length = reply->length;
    reply->length = head;
    wc_append_le(reply, total, 4);
    wc_append_le(reply, listed, 1);
    reply->length = length;
}
