/* libFuzzer on the firmware's core, with sanitizers:
 *     clang -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all tests/fuzzing/firmware.c tests/board/native.c \
 *         firmware/core/[a-z]*.c -o fuzz
 *     ./fuzz -runs=1000000 -max_len=2048
 * An input is a list of requests, so that the fuzzer gets past the frame's CRC: how to send it, command, length, body. Bit 0 of
 * `how`: the bytes as they are instead of a frame; bit 1: some other number; bit 2: some other token; bit 3: cut the frame short.
 * Without libFuzzer, -DSTANDALONE gives a program that draws inputs itself: ./fuzz 1000000 SEED. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../firmware/core/core.h"

void native_start(void);
uint32_t native_feed(const uint8_t *bytes, uint32_t count, uint8_t *answer, uint32_t room);

static uint8_t frame[1 << 12], answer[1 << 16];
static uint32_t length, token, next;
static unsigned long answered;

static void keep(uint8_t byte)
{
    frame[length++] = byte;
}

static void number(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++, value >>= 8)
        to[i] = (uint8_t)value;
}

static uint32_t number_at(const uint8_t *from)
{
    return from[0] | from[1] << 8 | from[2] << 16 | (uint32_t)from[3] << 24;
}

/* What a host would learn from the answers: token and number of the session. Every answer has to be a whole frame. */
static void hear(uint32_t count)
{
    static wc_decoder decoder;
    for (uint32_t i = 0; i < count; i++) {
        int size = wc_decode(&decoder, answer[i]);
        if (size < 0)
            continue;
        if (size < WC_REPLY_HEADER || (decoder.bytes[0] & 0x80) == 0)
            abort();
        answered++;
        uint32_t session = number_at(decoder.bytes + 1), which = number_at(decoder.bytes + 5);
        if (decoder.bytes[0] == (WC_HELLO | 0x80) && decoder.bytes[9] == WC_OK && session != token) {
            token = session;
            next = 1;
        } else if (session == token && decoder.bytes[9] != WC_GAP && which == next) {
            next++;
        }
    }
    if (decoder.counters.damaged)
        abort();
}

static void request(uint8_t how, uint8_t command, const uint8_t *body, uint32_t count)
{
    uint8_t content[WC_RAW] = {command};
    uint32_t room = WC_CONTENT - WC_HEADER;
    count = count < room ? count : room;
    number(content + 1, how & 4 ? token + 1 : token);
    number(content + 5, how & 2 ? next + how : next);
    for (uint32_t i = 0; i < count; i++)
        content[WC_HEADER + i] = body[i];
    length = 0;
    if (how & 1)
        for (uint32_t i = 0; i < count; i++)
            keep(body[i]);
    else
        wc_encode(content, (uint16_t)(WC_HEADER + count), keep);
    hear(native_feed(frame, how & 8 ? length * (how >> 4) / 16 : length, answer, sizeof answer));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t hello[5] = {WC_VERSION, 1, 2, 3, 4}, zero[1] = {0};
    native_start();
    token = next = 0;
    request(1, 0, zero, 1); /* ends a frame that an earlier input left open, on the host's side too */
    request(0, WC_HELLO, hello, sizeof hello);
    while (size >= 4) {
        uint32_t count = data[2] | (data[3] & 1u) << 8;
        size_t there = size - 4 < count ? size - 4 : count;
        request(data[0], data[1], data + 4, (uint32_t)there);
        data += 4 + there;
        size -= 4 + there;
    }
    return 0;
}

#ifdef STANDALONE
static uint64_t state;

static uint32_t any(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 20) % below;
}

int main(int count, char **given)
{
    static const uint16_t bodies[] = {5, 0, 258, 2, 3, 9, 13, 5, 5};
    unsigned long inputs = count > 1 ? strtoul(given[1], 0, 10) : 1000000;
    state = (count > 2 ? strtoull(given[2], 0, 10) : 1) * 0x9e3779b97f4a7c15ull | 1;
    for (unsigned long input = 0; input < inputs; input++) {
        uint8_t data[1024];
        uint32_t at = 0;
        for (uint32_t requests = any(4); requests > 0 && at < sizeof data - 300; requests--) {
            uint8_t command = (uint8_t)(any(8) ? any(9) + 1 : any(256)), low = any(3) == 0 ? WC_LOW : 0;
            uint32_t body = command <= 9 && command && any(8) ? bodies[command - 1] + (low ? 5u : 0u) : any(270);
            data[at] = (uint8_t)(any(4) ? 0 : any(256));
            data[at + 1] = command | low;
            number(data + at + 2, body);
            for (uint32_t i = 0; i < body; i++)
                data[at + 4 + i] = (uint8_t)(any(2) ? any(256) : any(4));
            at += 4 + body;
        }
        LLVMFuzzerTestOneInput(data, at);
    }
    printf("%lu inputs, %lu answers, no crash\n", inputs, answered);
    return 0;
}
#endif
