#include "reply.h"

uint32_t wc_get_le(const uint8_t *from, int bytes)
{
    uint32_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | from[bytes];
    return value;
}

void wc_append_bytes(wc_reply *reply, const void *from, int bytes)
{
    for (const uint8_t *byte = from; bytes > 0; bytes--, byte++) {
        reply->content[reply->length++] = *byte;
        reply->sum += reply->length * *byte;
    }
}

void wc_append_le(wc_reply *reply, uint32_t value, int bytes)
{
    wc_append_bytes(reply, &value, bytes);
}

void wc_begin_reply(wc_reply *reply, uint8_t *content, uint8_t command, uint32_t token, uint32_t number)
{
    reply->content = content;
    reply->length = 0;
    reply->sum = 0;
    wc_append_le(reply, command | 0x80u, 1);
    wc_append_le(reply, token, 4);
    wc_append_le(reply, number, 4);
    wc_append_le(reply, WC_OK, 1);
}

void wc_refuse_request(wc_reply *reply, uint8_t status)
{
    reply->length = WC_REPLY_HEADER;
    reply->content[WC_REPLY_HEADER - 1] = status;
}

uint32_t wc_reply_sum(const wc_reply *reply)
{
    uint32_t sum = 0;
    for (uint16_t i = 0; i < reply->length; i++)
        sum += (i + 1u) * reply->content[i];
    return sum;
}
